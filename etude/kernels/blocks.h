// Keys and values in blocks, and products with them.
//
// Keys lie in blocks of 16 positions, [.., position / 16, D, 16], so that 16 scores are one vector; bfloat16 keys as pairs of widths,
// [.., D / 2, 16, 2], and values as pairs of positions, [.., position / 2, D, 2], so that one load gives two vectors of float32, and so that
// the processor's tiles, where it has some, read both as they are.

#pragma once

#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_TILES
#endif

namespace {

// Two vectors of 16 that lie in one place, [2, W] for float32, [W, 2] for bfloat16: sum += x[0] · first + x[1] · second.
struct Floats {
    Vec first, second;
    explicit Floats(const float* from) : first(*reinterpret_cast<const LooseVec*>(from)), second(*reinterpret_cast<const LooseVec*>(from + W)) {}
    void add(Vec& sum, const float* x) const {
        sum += first * x[0];
        sum += second * x[1];
    }
};
struct Halves {
#ifdef __AVX512BF16__
    __m512i both;
    explicit Halves(const Half* from) : both(_mm512_loadu_si512(from)) {}
    void add(Vec& sum, const Half* x) const {
        int two;
        std::memcpy(&two, x, 4);
        sum = (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)both, (__m512bh)_mm512_set1_epi32(two));
    }
#else
    Ints both;
    explicit Halves(const Half* from) : both(*reinterpret_cast<const LooseInts*>(from)) {}
    void add(Vec& sum, const Half* x) const {
        sum += reinterpret_cast<Vec>(both << 16) * wide(x[0]);
        sum += reinterpret_cast<Vec>(both & int32_t(0xffff0000)) * wide(x[1]);
    }
#endif
};
inline Floats pair(const float* from) { return Floats(from); }
inline Halves pair(const Half* from) { return Halves(from); }
inline long place(const float*, long pair_of, long lane) { return (pair_of & 1) * W + lane; }
inline long place(const Half*, long pair_of, long lane) { return 2 * lane + (pair_of & 1); }

template <class T> inline long key_place(long width, long position, long d) {
    return position / W * W * width + d / 2 * 2 * W + place(static_cast<T*>(nullptr), d, position % W);
}
template <class T> inline long value_place(long width, long position, long d) {
    return position / 2 * 2 * width + d / W * 2 * W + place(static_cast<T*>(nullptr), position, d % W);
}
template <class T> void put_key(T* keys, long width, long position, const T* key) {
    T* __restrict to = keys + key_place<T>(width, position, 0);
    const long odd = key_place<T>(width, 0, 1);
    for (long d = 0; d < width; d += 2) {
        to[d * W] = key[d];
        to[d * W + odd] = key[d + 1];
    }
}
template <class T> void put_value(T* values, long width, long position, const T* value) {
    T* __restrict to = values + value_place<T>(width, position, 0);
    const long odd = value_place<T>(width, 0, 1);
    for (long d = 0; d < width; d += W)
        for (long i = 0; i < W; i++) to[2 * d + i * odd] = value[d + i];
}

// scores[n, :] = queries[n] · keys, for N queries and M blocks
template <int N, int M, class T> void some_scores(const T* queries, const T* keys, long width, float* scores, long room) {
    Vec sum[N][M] = {};
    for (long d = 0; d < width; d += 2)
        for (int m = 0; m < M; m++) {
            __builtin_prefetch(keys + ((M + m) * width + d) * W, 0, 2);  // the blocks behind these
            const auto two = pair(keys + (m * width + d) * W);
            for (int n = 0; n < N; n++) two.add(sum[n][m], queries + n * width + d);
        }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) save(sum[n][m], scores + n * room + m * W);
}

template <int N, class T> void scores_of(const T* queries, const T* keys, long width, long blocks, float* scores, long room) {
    long block = 0;
    for (; block + 2 <= blocks; block += 2) some_scores<N, 2>(queries, keys + block * W * width, width, scores + block * W, room);
    if (block < blocks) some_scores<N, 1>(queries, keys + block * W * width, width, scores + block * W, room);
}

// read[n, :] += Σ over positions of weights[n, position] · values[position], for N queries and M vectors of the width
template <int N, int M, class T>
void some_read(const T* weights, long room, const T* values, long width, long positions, float* read, long read_row) {
    Vec sum[N][M];
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) sum[n][m] = *reinterpret_cast<LooseVec*>(read + n * read_row + m * W);
    for (long t = 0; t < positions; t += 2, values += 2 * width)
        for (int m = 0; m < M; m++) {
            const auto two = pair(values + m * 2 * W);
            for (int n = 0; n < N; n++) two.add(sum[n][m], weights + n * room + t);
        }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) *reinterpret_cast<LooseVec*>(read + n * read_row + m * W) = sum[n][m];
}

// Values of a row of `width`, of which `end` are read from.
template <int N, class T>
void read_of(const T* weights, long room, const T* values, long width, long end, long positions, float* read, long read_row) {
    long d = 0;
    for (; d + 4 * W <= end; d += 4 * W) some_read<N, 4>(weights, room, values + 2 * d, width, positions, read + d, read_row);
    for (; d < end; d += W) some_read<N, 1>(weights, room, values + 2 * d, width, positions, read + d, read_row);
}

// Queries some at a time, so that sums stay in registers: `go` is called with how many, as a constant, and the first of them.
template <class Go> void some_at_a_time(long count, Go go) {
    long n = 0;
    for (; n + 6 <= count; n += 6) go(std::integral_constant<int, 6>{}, n);
    switch (count - n) {
        case 5: return go(std::integral_constant<int, 5>{}, n);
        case 4: return go(std::integral_constant<int, 4>{}, n);
        case 3: return go(std::integral_constant<int, 3>{}, n);
        case 2: return go(std::integral_constant<int, 2>{}, n);
        case 1: return go(std::integral_constant<int, 1>{}, n);
    }
}

#ifdef HAS_TILES
bool tiles_allowed() {
    static const bool is_allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // Linux lends them on demand
    return is_allowed;
}

// c [count, 32] = a [count, depth] · b [depth, 32], added to c where it `adds`, for up to 32 rows, by tiles of 16 rows of 64 bytes. Tiles of b,
// in pairs of its rows as keys and values lie, have rows `b_row` apart; the one of 16 columns further is at `b_next`, that of 32 rows further
// at `b_step`.
void by_tiles(const Half* a, long a_row, long count, const Half* b, long b_row, long b_next, long b_step, long depth, float* c, long c_row,
              bool adds) {
    const long first = std::min(16L, count), other = std::max(1L, count - 16), rows[] = {first, first, other, other, first, other, 16, 16};
    alignas(64) uint8_t shape[64] = {1};
    for (int tile = 0; tile < 8; tile++) {
        shape[16 + 2 * tile] = 64;
        shape[48 + tile] = uint8_t(rows[tile]);
    }
    _tile_loadconfig(shape);
    const bool has_other = count > 16;
    if (!adds) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, c, 4 * c_row);
        _tile_loadd(1, c + W, 4 * c_row);
    }
    if (adds && has_other) {
        _tile_loadd(2, c + 16 * c_row, 4 * c_row);
        _tile_loadd(3, c + 16 * c_row + W, 4 * c_row);
    }
    for (long k = 0; k < depth; k += 32, b += b_step) {
        _tile_loadd(4, a + k, 2 * a_row);
        _tile_loadd(6, b, 2 * b_row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + b_next, 2 * b_row);
        _tile_dpbf16ps(1, 4, 7);
        if (!has_other) continue;
        _tile_loadd(5, a + 16 * a_row + k, 2 * a_row);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 4 * c_row);
    _tile_stored(1, c + W, 4 * c_row);
    if (has_other) {
        _tile_stored(2, c + 16 * c_row, 4 * c_row);
        _tile_stored(3, c + 16 * c_row + W, 4 * c_row);
    }
    _tile_release();
}

void scores_by_tiles(const Half* queries, long count, const Half* keys, long width, long blocks, float* scores, long room) {
    for (long block = 0; block < blocks; block += 2)
        by_tiles(queries, width, count, keys + block * W * width, 2 * W, W * width, 32 * W, width, scores + block * W, room, false);
}

void read_by_tiles(const Half* weights, long count, long room, const Half* values, long width, long end, long positions, float* read,
                   long read_row) {
    for (long d = 0; d < end; d += 2 * W)
        by_tiles(weights, room, count, values + 2 * d, 2 * width, 2 * W, 32 * width, positions, read + d, read_row, true);
}

bool tiles_fit(const Half*, long width) { return width % 32 == 0 && tiles_allowed(); }
#else
bool tiles_fit(const Half*, long) { return false; }
void scores_by_tiles(...) {}
void read_by_tiles(...) {}
#endif
bool tiles_fit(const float*, long) { return false; }
void scores_by_tiles(const float*, long, const float*, long, long, float*, long) {}
void read_by_tiles(const float*, long, long, const float*, long, long, long, float*, long) {}

constexpr long FEW = 6;  // queries from which tiles are faster

template <class T> void scores_over(const T* queries, long count, const T* keys, long width, long blocks, float* scores, long room) {
    if (count >= FEW && tiles_fit(queries, width)) {
        for (long n = 0; n < count; n += 32)
            scores_by_tiles(queries + n * width, std::min(32L, count - n), keys, width, blocks, scores + n * room, room);
        return;
    }
    some_at_a_time(count, [&](auto some, long n) { scores_of<some()>(queries + n * width, keys, width, blocks, scores + n * room, room); });
}

// read[n, :end] += Σ over positions of weights[n, position] · values[position, :end], for values of `width`.
template <class T>
void read_from(const T* weights, long count, long room, const T* values, long width, long end, long blocks, float* read, long read_row) {
    if (count >= FEW && tiles_fit(weights, end)) {
        for (long n = 0; n < count; n += 32)
            read_by_tiles(weights + n * room, std::min(32L, count - n), room, values, width, end, blocks * W, read + n * read_row, read_row);
        return;
    }
    some_at_a_time(count, [&](auto some, long n) {
        read_of<some()>(weights + n * room, room, values, width, end, blocks * W, read + n * read_row, read_row);
    });
}

}  // namespace
