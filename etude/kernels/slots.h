// Attention of one token a row over keys and values [D] as they came: slots, of which every row and head has a stretch of its own length, or
// pages that are chosen for the token.

#pragma once

#include "blocks.h"

namespace {

template <class T> struct Slots {  // of a layer
    T *keys, *values;
    int32_t* positions;  // of tokens in their texts
    float* masses;       // attention that each slot has had so far
    const int64_t *starts, *counts;  // [rows, K]
};

constexpr long AHEAD = 32;                 // keys that are asked for from memory before they are read
constexpr long STRETCH = 1024, MANY = 16;  // keys of a head that are one thread's, where there are fewer than so many heads

// Where the keys of a head and their values are: one behind the other, or each where `at` says, its value so much further.
template <class T> struct InOrder {
    const T *keys, *values;
    long width;
    const T* key(long t) const { return keys + t * width; }
    const T* value(long t) const { return values + t * width; }
    InOrder from(long t) const { return {key(t), value(t), width}; }
};
template <class T> struct Listed {
    const T* const* at;
    long further;
    const T* key(long t) const { return at[t]; }
    const T* value(long t) const { return at[t] + further; }
    Listed from(long t) const { return {at + t, further}; }
};

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
template <int N, class Keys> void scores_of_keys(const float* queries, Keys keys, long count, long width, float* scores, long room) {
    for (long t = 0; t < count; t += W) {
        Vec sums[N][W];
        for (long i = 0; i < W; i++) {
            const auto* key = keys.key(std::min(t + i, count - 1));
            expect(keys.key(std::min(t + i + AHEAD, count - 1)), width);
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

// read[n] = Σ over keys of weights[n, t] · values[t], for M vectors of the width from `d` on
template <int N, int M, class Keys>
void read_of_values(const float* weights, long room, Keys keys, long count, long width, long d, float* read) {
    Vec sum[N][M] = {};
    for (long t = 0; t < count; t++) {
        const auto *value = keys.value(t) + d, *later = keys.value(std::min(t + AHEAD, count - 1)) + d;
        for (int m = 0; m < M; m++) {
            if (m * W * sizeof(*value) % 64 == 0) __builtin_prefetch(later + m * W, 0, 2);
            const Vec some = load(value + m * W);
            for (int n = 0; n < N; n++) sum[n][m] += some * weights[n * room + t];
        }
    }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) save(sum[n][m], read + n * width + d + m * W);
}

// What the queries of a row's head read: `keys_of(pair)` are those of a row and head, `counts` how many. With `masses_of(pair)`, where that is
// not null, each key is told what attention it has, the mean over the heads that share it.
template <class T, class KeysOf, class MassesOf>
void attend_over(const T* queries, long query_row, long query_head, KeysOf keys_of, MassesOf masses_of, const int64_t* counts, long rows, long heads,
                 long kv_heads, long width, float scale, T* read) {
    struct Part {
        long pair, first, count;  // the row and head, and which of its keys
    };
    const long share = heads / kv_heads, pairs = rows * kv_heads, size = share * (width + 2);
    std::vector<Part> parts;
    for (long pair = 0; pair < pairs; pair++) {
        const long count = counts[pair], pieces = pairs < MANY && !masses_of(pair) ? std::max(1L, count / STRETCH) : 1;
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
            const auto keys = keys_of(part.pair).from(part.first);
            float *tops = &found[number * size], *totals = tops + share, *mine = totals + share;
            for (long n = 0; n < share; n++)
                for (long d = 0; d < width; d++) asked[n * width + d] = wide(queries[row * query_row + (head * share + n) * query_head + d]) * scale;
            scores.resize(share * room);
            some_at_a_time(share, [&](auto some, long n) {
                constexpr int N = some();
                float* own = scores.data() + n * room;
                scores_of_keys<N>(&asked[n * width], keys, part.count, width, own, room);
                for (int i = 0; i < N; i++) {
                    tops[n + i] = top_of(own + i * room, part.count, blocks);
                    totals[n + i] = weights_of(own + i * room, blocks, tops[n + i], 1, own + i * room);
                }
                long d = 0;
                for (; d + SUMS * W <= width; d += SUMS * W) read_of_values<N, SUMS>(own, room, keys, part.count, width, d, mine + n * width);
                for (; d < width; d += W) read_of_values<N, 1>(own, room, keys, part.count, width, d, mine + n * width);
            });
            float* masses = masses_of(part.pair);
            for (long n = 0; masses && n < share; n++)
                for (long t = 0; t < part.count; t++) masses[t] += scores[n * room + t] / (totals[n] * share);
        }
    }
    for (long number = 0, end; number < long(parts.size()); number = end) {
        const long pair = parts[number].pair;
        for (end = number; end < long(parts.size()) && parts[end].pair == pair;) end++;
        for (long n = 0; n < share; n++) {
            float top = LEAST, all = 0;
            for (long i = number; i < end; i++) top = std::max(top, found[i * size + n]);
            for (long i = number; i < end; i++) all += found[i * size + share + n] * (found[i * size + n] = std::exp(found[i * size + n] - top));
            for (long i = number; i < end; i++) found[i * size + n] /= all;
            T* to = read + (pair / kv_heads * heads + pair % kv_heads * share + n) * width;
            for (long d = 0; d < width; d += W) {
                Vec sum = {};
                for (long i = number; i < end && counts[pair]; i++) sum += load(&found[i * size + 2 * share + n * width + d]) * found[i * size + n];
                save(sum, to + d);
            }
        }
    }
}

// `sums`: whether slots are told what attention they have.
template <class T>
void attend_slots(const T* queries, long query_row, long query_head, Slots<T> slots, long rows, long heads, long kv_heads, long width, float scale,
                  bool sums, T* read) {
    const auto keys_of = [=](long pair) {
        return InOrder<T>{slots.keys + slots.starts[pair] * width, slots.values + slots.starts[pair] * width, width};
    };
    const auto masses_of = [=](long pair) { return sums ? slots.masses + slots.starts[pair] : nullptr; };
    attend_over(queries, query_row, query_head, keys_of, masses_of, slots.counts, rows, heads, kv_heads, width, scale, read);
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

// Which pages promise most, [rows, K, most], by place and in order of these, of the `full` first of a row `reads`; page 0 is one of them. For
// each query the softmax of its products with what is known of pages, [rows, K, room, X], and over the queries of a head the largest of it.
// `halves`: the queries [rows, H, X] as they meet that, times the scale. Behind those of a row come as many places as it lacks, each 0.
template <class T>
void best_pages(const float* halves, const T* known, long room, const int64_t* full, const int64_t* reads, long rows, long heads, long kv_heads, long numbers,
                long most, int64_t* chosen) {
    const long share = heads / kv_heads;
#pragma omp parallel
    {
        std::vector<float> scores, worth;
        std::vector<int64_t> order;
#pragma omp for schedule(dynamic)
        for (long pair = 0; pair < rows * kv_heads; pair++) {
            const long row = pair / kv_heads, head = pair % kv_heads, pages = full[row], count = reads[row];
            const long blocks = (pages + W - 1) / W, wide_room = blocks * W;
            int64_t* mine = chosen + pair * most;
            std::fill_n(mine, most, 0);
            order.resize(pages);
            for (long page = 0; page < pages; page++) order[page] = page;
            if (count < pages) {
                scores.resize(share * wide_room);
                worth.assign(wide_room, 0);
                const InOrder<T> keys{known + pair * room * numbers, nullptr, numbers};
                some_at_a_time(share, [&](auto some, long n) {
                    scores_of_keys<some()>(halves + (row * heads + head * share + n) * numbers, keys, pages, numbers, &scores[n * wide_room], wide_room);
                });
                for (long n = 0; n < share; n++) {
                    float* own = &scores[n * wide_room];
                    const float sum = weights_of(own, blocks, top_of(own, pages, blocks), 1, own);
                    for (long t = 0; t < wide_room; t += W) save(max_of(load(own + t) / sum, load(&worth[t])), &worth[t]);  // what is no number is worth nothing
                }
                worth[0] = -LEAST;
                std::nth_element(order.begin(), order.begin() + count, order.end(),
                                 [&](long a, long b) { return worth[a] != worth[b] ? worth[a] > worth[b] : a < b; });
                std::sort(order.begin(), order.begin() + count);
            }
            std::copy_n(order.begin(), std::min(count, pages), mine);
        }
    }
}

// Over the chosen pages of each row and head, [2, tokens, D] at the places that are named, so many of each row, and over its open page.
template <class T>
void attend_pages(const T* queries, const T* pages, const int64_t* places, const int64_t* reads, long most, const T* open, const int64_t* open_tokens,
                  long tokens, long rows, long heads, long kv_heads, long width, float scale, T* read) {
    const long size = 2 * tokens * width, longest = (most + 1) * tokens;
    std::vector<const T*> at(rows * kv_heads * longest);
    std::vector<int64_t> counts(rows * kv_heads);
    for (long pair = 0; pair < rows * kv_heads; pair++) {
        const T** mine = &at[pair * longest];
        const auto list = [&](const T* page, long count) {
            for (long t = 0; t < count; t++) *mine++ = page + t * width;
        };
        for (long i = 0; i < reads[pair / kv_heads]; i++) list(pages + places[pair * most + i] * size, tokens);
        list(open + pair * size, open_tokens[pair / kv_heads]);
        counts[pair] = mine - &at[pair * longest];
    }
    const auto keys_of = [&](long pair) { return Listed<T>{&at[pair * longest], tokens * width}; };
    attend_over(queries, heads * width, width, keys_of, [](long) { return static_cast<float*>(nullptr); }, counts.data(), rows, heads, kv_heads, width, scale,
                read);
}

}  // namespace
