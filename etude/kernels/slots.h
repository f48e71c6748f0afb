// Attention of one token a row over slots: keys and values [S, D] as they came, of which every row and head has a stretch of its own length.

#pragma once

#include "blocks.h"

namespace {

template <class T> struct Slots {  // of a layer
    T *keys, *values;
    int32_t* positions;  // of tokens in their texts
    float* masses;       // attention that each slot has had so far
    const int64_t *starts, *counts;  // [rows, K]
};

constexpr long AHEAD = 32;  // slots that are asked for from memory before they are read
constexpr long STRETCH = 1024, MANY = 16;  // slots of a head that are one thread's, where there are fewer than so many heads

// Of W vectors the sum of each, as one vector: two are folded into one, half by half.
template <int HALF = W / 2> inline Vec sums_of(Vec* each) {
    if constexpr (HALF > 0) {
        const Ints is_other = (LANES & HALF) != 0, first = is_other ? (LANES ^ HALF) + W : LANES, second = is_other ? LANES + W : LANES ^ HALF;
        for (int i = 0; i < HALF; i++)
            each[i] = __builtin_shuffle(each[i], each[i + HALF], first) + __builtin_shuffle(each[i], each[i + HALF], second);
        return sums_of<HALF / 2>(each);
    } else
        return each[0];
}

// scores[n, t] = queries[n] · keys[t]; behind the last one some more are written, up to a whole vector
template <int N, class T> void scores_of_slots(const float* queries, const T* keys, long count, long width, float* scores, long room) {
    for (long t = 0; t < count; t += W) {
        Vec sums[N][W];
        for (long i = 0; i < W; i++) {
            const T* key = keys + std::min(t + i, count - 1) * width;
            expect(key + AHEAD * width, width);
            Vec sum[N] = {};
            for (long d = 0; d < width; d += W) {
                const Vec some = load(key + d);
                for (int n = 0; n < N; n++) sum[n] += load(queries + n * width + d) * some;
            }
            for (int n = 0; n < N; n++) sums[n][i] = sum[n];
        }
        for (int n = 0; n < N; n++) save(sums_of(sums[n]), scores + n * room + t);
    }
}

// read[n] = Σ over slots of weights[n, t] · values[t], for M vectors of the width
template <int N, int M, class T>
void read_of_slots(const float* weights, long room, const T* values, long count, long width, float* read) {
    Vec sum[N][M] = {};
    for (long t = 0; t < count; t++, values += width)
        for (int m = 0; m < M; m++) {
            if (m * W * sizeof(T) % 64 == 0) __builtin_prefetch(values + AHEAD * width + m * W, 0, 2);
            const Vec value = load(values + m * W);
            for (int n = 0; n < N; n++) sum[n][m] += value * weights[n * room + t];
        }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) save(sum[n][m], read + n * width + m * W);
}

// `sums`: whether slots are told what attention they have, the mean over the heads that share them.
template <class T>
void attend_slots(const T* queries, long query_row, long query_head, Slots<T> slots, long rows, long heads, long kv_heads, long width, float scale,
                  bool sums, T* read) {
    struct Part {
        long pair, first, count;  // the row and head, and which of its slots
    };
    const long share = heads / kv_heads, pairs = rows * kv_heads, size = share * (width + 2);
    std::vector<Part> parts;
    for (long pair = 0; pair < pairs; pair++) {
        const long count = slots.counts[pair], pieces = pairs < MANY && !sums ? std::max(1L, count / STRETCH) : 1;
        for (long piece = 0; piece < pieces; piece++)
            parts.push_back({pair, count * piece / pieces, count * (piece + 1) / pieces - count * piece / pieces});
    }
    std::vector<float> found(parts.size() * size);  // of each part tops [share], sums of weights [share], and what is read [share, D]
#pragma omp parallel
    {
        std::vector<float> asked(share * width), scores;
#pragma omp for schedule(dynamic)
        for (long number = 0; number < long(parts.size()); number++) {
            const Part part = parts[number];
            const long row = part.pair / kv_heads, head = part.pair % kv_heads, blocks = (part.count + W - 1) / W, room = blocks * W;
            const T *keys = slots.keys + (slots.starts[part.pair] + part.first) * width, *values = slots.values + (keys - slots.keys);
            float *tops = &found[number * size], *totals = tops + share, *mine = totals + share;
            for (long n = 0; n < share; n++)
                for (long d = 0; d < width; d++) asked[n * width + d] = wide(queries[row * query_row + (head * share + n) * query_head + d]);
            scores.resize(share * room);
            some_at_a_time(share, [&](auto some, long n) {
                constexpr int N = some();
                float* own = scores.data() + n * room;
                scores_of_slots<N>(&asked[n * width], keys, part.count, width, own, room);
                for (int i = 0; i < N; i++) {
                    tops[n + i] = top_of(own + i * room, part.count, blocks);
                    totals[n + i] = weights_of(own + i * room, blocks, tops[n + i], scale, own + i * room);
                }
                long d = 0;
                for (; d + SUMS * W <= width; d += SUMS * W) read_of_slots<N, SUMS>(own, room, values + d, part.count, width, mine + n * width + d);
                for (; d < width; d += W) read_of_slots<N, 1>(own, room, values + d, part.count, width, mine + n * width + d);
            });
            if (!sums) continue;
            float* masses = slots.masses + slots.starts[part.pair];
            for (long n = 0; n < share; n++)
                for (long t = 0; t < part.count; t++) masses[t] += scores[n * room + t] / (totals[n] * share);
        }
    }
    for (long number = 0, end; number < long(parts.size()); number = end) {
        const long pair = parts[number].pair;
        for (end = number; end < long(parts.size()) && parts[end].pair == pair;) end++;
        for (long n = 0; n < share; n++) {
            float top = LEAST, all = 0;
            for (long i = number; i < end; i++) top = std::max(top, found[i * size + n]);
            for (long i = number; i < end; i++) all += found[i * size + share + n] * (found[i * size + n] = std::exp((found[i * size + n] - top) * scale));
            for (long i = number; i < end; i++) found[i * size + n] /= all;
            T* to = read + (pair / kv_heads * heads + pair % kv_heads * share + n) * width;
            for (long d = 0; d < width; d += W) {
                Vec sum = {};
                for (long i = number; i < end && slots.counts[pair]; i++) sum += load(&found[i * size + 2 * share + n * width + d]) * found[i * size + n];
                save(sum, to + d);
            }
        }
    }
}

// The new token of each row becomes the last of what its heads hold; `seen`: its place in its text.
template <class T>
void put_slots(Slots<T> slots, const T* keys, const T* values, long key_row, const int64_t* seen, long rows, long kv_heads, long width) {
    for (long pair = 0; pair < rows * kv_heads; pair++) {
        const long row = pair / kv_heads, at = slots.starts[pair] + slots.counts[pair] - 1, from = row * key_row + pair % kv_heads * width;
        std::copy_n(keys + from, width, slots.keys + at * width);
        std::copy_n(values + from, width, slots.values + at * width);
        slots.positions[at] = int32_t(seen[row]);
        slots.masses[at] = 0;
    }
}

}  // namespace
