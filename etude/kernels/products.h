// Products of float32 numbers, some rows and some vectors of columns at a time: as many sums as a processor has room for.

#pragma once

#include "vectors.h"

namespace {

constexpr int ROWS = 6, COLUMNS = SUMS;

// c = a b, or c += a b, for N rows and V vectors of columns. Every sum is taken in the order of `depth`, whatever stands beside it.
// `is_far`: b is not in a core's cache yet.
template <int N, int V>
__attribute__((noinline)) void some_sums(const float* a, long a_row, const float* b, long b_row, long depth, float* c, long c_row, bool is_more, bool is_far) {
    constexpr long AHEAD = 16;
    Vec sums[N][V];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) sums[n][v] = is_more ? load(c + n * c_row + v * W) : Vec{};
    for (long k = 0; k < depth; k++) {
        Vec some[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            some[v] = load(b + k * b_row + v * W);
            if (is_far) __builtin_prefetch(b + (k + AHEAD) * b_row + v * W, 0, 2);
        }
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            const float mine = a[n * a_row + k];
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) sums[n][v] += mine * some[v];
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) save(sums[n][v], c + n * c_row + v * W);
}

// The same for up to ROWS rows and COLUMNS vectors.
template <int N = ROWS, int V = COLUMNS>
void sums(long rows, long vectors, const float* a, long a_row, const float* b, long b_row, long depth, float* c, long c_row, bool is_more, bool is_far) {
    if constexpr (N == 1 && V == 1) {  // of a single sum GCC rounds products before it adds them, on some processors: a second one beside it
        float both[2 * W];
        if (is_more) save(load(c), both), save(load(c), both + W);
        some_sums<2, 1>(a, 0, b, b_row, depth, both, W, is_more, is_far);
        save(load(both), c);
    } else if (rows < N) {
        if constexpr (N > 1) sums<N - 1, V>(rows, vectors, a, a_row, b, b_row, depth, c, c_row, is_more, is_far);
    } else if (vectors < V) {
        if constexpr (V > 1) sums<N, V - 1>(rows, vectors, a, a_row, b, b_row, depth, c, c_row, is_more, is_far);
    } else
        some_sums<N, V>(a, a_row, b, b_row, depth, c, c_row, is_more, is_far);
}

}  // namespace
