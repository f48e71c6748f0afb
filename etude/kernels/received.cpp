// What keys receive of a prompt's attention: of every key the sum over queries and heads, or the most that any of them gives. Scores of some
// queries and keys are weights, and taken together, while they are in a core's cache. `received.py` hands tensors over, and says what goes in
// and out.

#include "blocks.h"

namespace {

constexpr long QUERIES = 32, KEYS = 128;  // at a time: of as many scores a core's nearest cache has room

struct Sizes {
    long heads, queries, tokens, width;  // tokens: those before and the queries' own
};

// found[t] = Σ, or the largest, over the heads' queries that see key `first` + t of exp(score · scale - normaliser); 0 where none does
template <bool SUMS, class T>
void some_received(const T* queries, const float* normaliser, const T* keys, long first, long count, const Sizes& sizes, float scale, float* scores,
                   float* found) {
    const long blocks = (count + W - 1) / W, before = sizes.tokens - sizes.queries, from = std::max(0L, first - before);
    std::fill_n(found, blocks * W, SUMS ? 0.0f : LEAST);
    for (long head = 0; head < sizes.heads; head++)
        for (long q = from; q < sizes.queries; q += QUERIES) {
            const long number = std::min(QUERIES, sizes.queries - q), row = head * sizes.queries + q;
            scores_over(queries + row * sizes.width, number, keys, sizes.width, blocks, scores, KEYS);
            for (long t = 0; t < blocks * W; t += W) {
                Vec now = load(found + t);
                for (long n = 0; n < number; n++) {
                    Vec some = load(scores + n * KEYS + t) * scale - normaliser[row + n];
                    const long seen = before + q + n + 1 - first - t;  // keys of this vector that the query may read
                    if (seen < W) some = LANES < int32_t(std::max(seen, 0L)) ? some : Vec{} + LEAST;
                    now = SUMS ? now + exp_of(some) : max_of(now, some);
                }
                save(now, found + t);
            }
        }
    if (!SUMS)
        for (long t = 0; t < blocks * W; t += W) save(exp_of(load(found + t)), found + t);
}

template <bool SUMS, class T>
void received(const T* queries, const float* normaliser, const T* keys, const Sizes& sizes, long asked, float scale, float* found) {
    const long stretches = (asked + KEYS - 1) / KEYS;
#pragma omp parallel
    {
        const std::unique_ptr<float[]> room(new float[(QUERIES + 1) * KEYS]);
        const std::unique_ptr<T[]> packed(new T[KEYS * sizes.width]());
        float *scores = room.get(), *own = scores + QUERIES * KEYS;
#pragma omp for schedule(dynamic)
        for (long stretch = 0; stretch < stretches; stretch++) {  // the first ones are seen by most
            const long first = stretch * KEYS, count = std::min(KEYS, asked - first);
            for (long t = 0; t < count; t++) put_key(packed.get(), sizes.width, t, keys + (first + t) * sizes.width);
            some_received<SUMS>(queries, normaliser, packed.get(), first, count, sizes, scale, scores, own);
            std::copy_n(own, count, found + first);
        }
    }
}

}  // namespace

#define RECEIVED(T, NAME)                                                                                                                      \
    extern "C" void received_##NAME(const T* queries, const float* normaliser, const T* keys, long heads, long number, long tokens,             \
                                    long width, long asked, float scale, bool is_sum, float* found) {                                           \
        const Sizes sizes{heads, number, tokens, width};                                                                                           \
        (is_sum ? received<true, T> : received<false, T>)(queries, normaliser, keys, sizes, asked, scale, found);                                  \
    }
RECEIVED(float, float32)
RECEIVED(Half, bfloat16)
