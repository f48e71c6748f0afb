// Attention of one token a row over keys and values [D] as they came: over slots, of which every row and head has a stretch.

#pragma once

#include "blocks.h"

namespace {

template <class T> struct Slots {  // of a layer
    T *keys, *values;
    int32_t* positions;  // of tokens in their texts
    float* masses;       // attention that each slot has had so far
    const int64_t *starts, *counts;  // [rows, K]
};

constexpr long AT_ONCE = 64;               // keys whose values are read right behind their scores
constexpr long STRETCH = 1024, MANY = 16;  // keys of a head that are one thread's, where there are fewer than so many heads

// Where the keys of a head and their values are: one behind the other, or each where it is said.
template <class T> struct InOrder {
    const T *keys, *values;
    long width;
    const T* key(long t) const { return keys + t * width; }
    const T* value(long t) const { return values + t * width; }
    InOrder from(long t) const { return {key(t), value(t), width}; }
};
template <class T> struct Listed {
    const T *const *keys, *const *values;
    const T* key(long t) const { return keys[t]; }
    const T* value(long t) const { return values[t]; }
    Listed from(long t) const { return {keys + t, values + t}; }
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

// scores[n, t] = queries[n] · keys[t]; behind the last one some more are written, up to a whole vector. `ask(t)` asks for what is read next.
template <int N, class Keys, class Ask>
void scores_of_keys(const float* queries, Keys keys, long count, long width, float* scores, long room, Ask ask) {
    for (long t = 0; t < count; t += W) {
        Vec sums[N][W];
        for (long i = 0; i < W; i++) {
            const auto* key = keys.key(std::min(t + i, count - 1));
            ask(t + i);
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

// read[n] += Σ over keys of weights[n, t] · values[t], for M vectors of the width from `d` on
template <int N, int M, class Keys, class Ask>
void read_of_values(const float* weights, Keys keys, long count, long width, long d, float* read, Ask ask) {
    Vec sum[N][M];
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) sum[n][m] = load(read + n * width + d + m * W);
    for (long t = 0; t < count; t++) {
        ask(t);
        for (int m = 0; m < M; m++) {
            const Vec some = load(keys.value(t) + d + m * W);
            for (int n = 0; n < N; n++) sum[n][m] += some * weights[n * AT_ONCE + t];
        }
    }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) save(sum[n][m], read + n * width + d + m * W);
}

// How the queries of a head meet some of its keys and values: by vectors.
template <class T> class ByVectors {
    const long share, width;
    const float scale;
    std::vector<float> asked;

  public:
    static constexpr long PARTS = 1;  // of a query's weights and sums

    ByVectors(long share, long width, float scale) : share(share), width(width), scale(scale), asked(share * width) {}
    void take(const T* queries, long query_head) {
        for (long n = 0; n < share; n++)
            for (long d = 0; d < width; d++) asked[n * width + d] = wide(queries[n * query_head + d]) * scale;
    }
    template <class Keys, class Ask> void scores(Keys keys, long count, float* to, long room, Ask ask) {
        some_at_a_time(share, [&](auto some, long n) {
            const auto once = [&](long t) { if (n == 0) ask(t); };
            scores_of_keys<some()>(&asked[n * width], keys, count, width, to + n * room, room, once);
        });
    }
    float weights(const float* scores, long blocks, float top, float* to) { return weights_of(scores, blocks, top, 1, to); }
    template <class Keys, class Ask> void read(const float* weights, Keys keys, long count, float* sums, Ask ask) {
        some_at_a_time(share, [&](auto some, long n) {
            constexpr int N = some();
            long d = 0;
            const auto once = [&](long t) { if (n == 0 && d == 0) ask(t); };
            for (; d + SUMS * W <= width; d += SUMS * W) read_of_values<N, SUMS>(weights + n * AT_ONCE, keys, count, width, d, sums + n * width, once);
            for (; d < width; d += W) read_of_values<N, 1>(weights + n * AT_ONCE, keys, count, width, d, sums + n * width, once);
        });
    }
    void give(const float* sums, float* to) { std::copy_n(sums, share * width, to); }
};

#ifdef HAS_TILES
// The same by tiles: 0 and 1 sum values, 4 sums scores, 5 has weights, 6 sixteen keys or values, 7 queries. A tile multiplies numbers in pairs
// and adds both up: values of even and of odd places are taken apart by weights whose pairs have one that is 0.
class ByTiles {
    const long share, width;
    const float scale;
    std::vector<Half> asked, copy;  // queries as [D / 2, n, 2]; sixteen keys or values that lie apart

    // Of `count` rows the sixteen from `t` on, with zeros behind the last: where they lie, if one behind the other, or a copy.
    template <class At> const Half* sixteen(At at, long t, long count) {
        bool is_in_order = t + 16 <= count;
        for (long i = 1; i < 16 && is_in_order; i++) is_in_order = at(t + i) == at(t) + i * width;
        if (is_in_order) return at(t);
        for (long i = 0; i < 16; i++)
            if (t + i < count)
                std::copy_n(at(t + i), width, &copy[i * width]);
            else
                std::fill_n(&copy[i * width], width, Half{});
        return copy.data();
    }

  public:
    static constexpr long PARTS = 2, MOST = 8;  // for odd places of values, then for even ones; queries

    ByTiles(long share, long width, float scale) : share(share), width(width), scale(scale), asked(share * width), copy(16 * width) {
        alignas(64) uint8_t shape[64] = {1};
        for (int tile = 0; tile < 8; tile++) {
            shape[16 + 2 * tile] = uint8_t(tile == 4 || tile == 7 ? 4 * share : 64);
            shape[48 + tile] = uint8_t(tile < 2 || tile == 5 ? PARTS * share : 16);
        }
        _tile_loadconfig(shape);
    }
    ~ByTiles() { _tile_release(); }
    void take(const Half* queries, long query_head) {
        for (long n = 0; n < share; n++)
            for (long d = 0; d < width; d++) asked[(d / 2 * share + n) * 2 + d % 2] = queries[n * query_head + d];
    }
    template <class Keys, class Ask> void scores(Keys keys, long count, float* to, long room, Ask ask) {
        alignas(64) float sums[16 * 16];  // [t, n]
        for (long t = 0; t < count; t += 16) {
            const Half* some = sixteen([&](long i) { return keys.key(i); }, t, count);
            written();
            for (long i = 0; i < 16; i++) ask(t + i);
            _tile_zero(4);
            for (long d = 0; d < width; d += 32) {
                _tile_loadd(6, some + d, 2 * width);
                _tile_loadd(7, &asked[d * share], 4 * share);
                _tile_dpbf16ps(4, 6, 7);
            }
            _tile_stored(4, sums, 64);
            for (long n = 0; n < share; n++) save((Vec)_mm512_i32gather_ps((__m512i)(LANES * 16), sums + n, 4) * scale, to + n * room + t);
        }
    }
    // Rounded to bfloat16, the upper half of a float32; behind those of all queries the same as lower half.
    float weights(const float* scores, long blocks, float top, float* to) {
        Vec sums = {};
        for (long t = 0; t < blocks * W; t += W) {
            const Vec weight = exp_of(load(scores + t) - top);
            const Ints upper = rounded(reinterpret_cast<Ints>(weight)) & int32_t(0xffff0000);
            save(reinterpret_cast<Vec>(upper), to + t);
            save(reinterpret_cast<Vec>(upper >> 16), to + share * AT_ONCE + t);
            sums += weight;
        }
        return sum_of(sums);
    }
    template <class Keys, class Ask> void read(const float* weights, Keys keys, long count, float* sums, Ask ask) {
        const long half = width / 2;
        for (long d = 0; d < half; d += 32) {
            const bool has_other = d + 16 < half;
            _tile_loadd(0, sums + d, 4 * half);
            if (has_other) _tile_loadd(1, sums + d + 16, 4 * half);
            for (long t = 0; t < count; t += 16) {
                const Half* some = sixteen([&](long i) { return keys.value(i); }, t, count) + 2 * d;
                written();
                for (long i = 0; i < 16 && d == 0; i++) ask(t + i);
                _tile_loadd(5, weights + t, 4 * AT_ONCE);
                _tile_loadd(6, some, 2 * width);
                _tile_dpbf16ps(0, 5, 6);
                if (!has_other) continue;
                _tile_loadd(6, some + 32, 2 * width);
                _tile_dpbf16ps(1, 5, 6);
            }
            _tile_stored(0, sums + d, 4 * half);
            if (has_other) _tile_stored(1, sums + d + 16, 4 * half);
        }
    }
    void give(const float* sums, float* to) {
        for (long n = 0; n < share; n++)
            for (long d = 0; d < width; d++) to[n * width + d] = sums[((1 - d % 2) * share + n) * width / 2 + d / 2];
    }
};
#endif

// What the queries that `products` took read of a head's keys: highest scores [n], sums of weights [n], and values [n, D]. Keys are told what
// attention they have, the mean over the queries, where `masses` is not null. The values of some keys are read right behind their scores,
// while other memory is on its way: under the highest score so far, by which what was read before is made smaller when it grows.
template <class Products, class Keys>
void attend_to(Products& products, Keys keys, long count, long share, long width, float* tops, float* totals, float* read, float* masses) {
    const long room = masses ? (count + W - 1) / W * W : AT_ONCE, row = width / Products::PARTS;
    std::vector<float> scores(share * room), weights(Products::PARTS * share * AT_ONCE), sums(share * width);
    std::fill_n(tops, share, LEAST);
    std::fill_n(totals, share, 0.0f);
    for (long first = 0; first < count; first += AT_ONCE) {
        const long some = std::min(AT_ONCE, count - first), next = std::min(AT_ONCE, count - first - some), blocks = (some + W - 1) / W;
        const auto here = keys.from(first);
        float* own = &scores[masses ? first : 0];
        products.scores(here, some, own, room, [&](long t) {
            if (t < some) expect<3>(here.value(t), width);
        });
        for (long n = 0; n < share; n++) {
            const float top = std::max(tops[n], top_of(own + n * room, some, blocks)), smaller = std::exp(tops[n] - top);
            if (top > tops[n]) {
                totals[n] *= smaller;
                for (long part = n; part < Products::PARTS * share; part += share)
                    for (long d = 0; d < row; d += W) save(load(&sums[part * row + d]) * smaller, &sums[part * row + d]);
            }
            tops[n] = top;
            totals[n] += products.weights(own + n * room, blocks, top, &weights[n * AT_ONCE]);
        }
        products.read(weights.data(), here, some, sums.data(), [&](long t) {
            if (t < next) expect<3>(here.key(some + t), width);
        });
    }
    products.give(sums.data(), read);
    for (long t = 0; masses && t < count; t += W) {
        Vec found = {};
        for (long n = 0; n < share; n++) found += exp_of(load(&scores[n * room + t]) - tops[n]) / (totals[n] * share);
        for (long i = 0; i < std::min(long(W), count - t); i++) masses[t + i] += found[i];
    }
}

template <class Products, class T, class KeysOf, class MassesOf>
void attend_by(const T* queries, long query_row, long query_head, const int64_t* counts, long rows, long heads, long kv_heads, long width, float scale,
               T* read, KeysOf keys_of, MassesOf masses_of) {
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
        Products products(share, width, scale);
#pragma omp for schedule(dynamic)
        for (long number = 0; number < long(parts.size()); number++) {
            const Part part = parts[number];
            const long row = part.pair / kv_heads, head = part.pair % kv_heads;
            float *tops = &found[number * size], *totals = tops + share;
            products.take(queries + row * query_row + head * share * query_head, query_head);
            attend_to(products, keys_of(part.pair).from(part.first), part.count, share, width, tops, totals, totals + share, masses_of(part.pair));
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

// What the queries of a row's head read: `keys_of(pair)` are those of a row and head, `counts` how many, `masses_of(pair)` their attention so
// far or null.
template <class T, class... Rest>
void attend_over(const T* queries, long query_row, long query_head, const int64_t* counts, long rows, long heads, long kv_heads, long width, float scale,
                 T* read, Rest... keys_and_masses) {
#ifdef HAS_TILES
    if constexpr (std::is_same<T, Half>())
        if (heads / kv_heads <= ByTiles::MOST && tiles_fit(queries, width))
            return attend_by<ByTiles>(queries, query_row, query_head, counts, rows, heads, kv_heads, width, scale, read, keys_and_masses...);
#endif
    attend_by<ByVectors<T>>(queries, query_row, query_head, counts, rows, heads, kv_heads, width, scale, read, keys_and_masses...);
}

// `sums`: whether slots are told what attention they have.
template <class T>
void attend_slots(const T* queries, long query_row, long query_head, Slots<T> slots, long rows, long heads, long kv_heads, long width, float scale,
                  bool sums, T* read) {
    const auto keys_of = [=](long pair) {
        return InOrder<T>{slots.keys + slots.starts[pair] * width, slots.values + slots.starts[pair] * width, width};
    };
    const auto masses_of = [=](long pair) { return sums ? slots.masses + slots.starts[pair] : nullptr; };
    attend_over(queries, query_row, query_head, slots.counts, rows, heads, kv_heads, width, scale, read, keys_of, masses_of);
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
