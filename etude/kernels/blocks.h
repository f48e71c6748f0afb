// Keys and values in blocks, and products with them.
//
// Keys lie in blocks of W positions, [.., position / W, D, W], so that W scores are one vector; bfloat16 keys as pairs of widths,
// [.., D / 2, W, 2], and values as pairs of positions, [.., position / 2, D, 2], so that one load gives two vectors of float32, and so that
// the processor's tiles, where it has some, read both as they are.

#pragma once

#include <memory>
#include <utility>

#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__AVX512F__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_TILES
#endif

namespace {

// Two vectors that lie in one place, [2, W] for float32, [W, 2] for bfloat16: sum += x[0] · first + x[1] · second.
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
inline void put_pair(float* to, const float* two) { to[0] = two[0], to[W] = two[1]; }
inline void put_pair(Half* to, const Half* two) { std::memcpy(to, two, sizeof(Half[2])); }
template <class T> void put_key(T* keys, long width, long position, const T* key) {
    T* to = keys + key_place<T>(width, position, 0);
    for (long d = 0; d < width; d += 2) put_pair(to + d * W, key + d);
}
template <class T> void put_value(T* values, long width, long position, const T* value) {
    T* __restrict to = values + value_place<T>(width, position, 0);
    const long odd = value_place<T>(width, 0, 1);
    for (long d = 0; d < width; d += W)
        for (long i = 0; i < W; i++) to[2 * d + i * odd] = value[d + i];
}

template <class T> void copy_key(const T* keys, long width, long position, T* to, long to_position) {
    const T* from = keys + key_place<T>(width, position, 0);
    to += key_place<T>(width, to_position, 0);
    const long odd = key_place<T>(width, 0, 1);
    for (long d = 0; d < width; d += 2) to[d * W] = from[d * W], to[d * W + odd] = from[d * W + odd];
}
template <class T> void copy_value(const T* values, long width, long position, T* to, long to_position) {
    const T* from = values + value_place<T>(width, position, 0);
    to += value_place<T>(width, to_position, 0);
    const long odd = value_place<T>(width, 0, 1);
    for (long d = 0; d < width; d += W)
        for (long i = 0; i < W; i++) to[2 * d + i * odd] = from[2 * d + i * odd];
}

// scores[n, :] = queries[n] · keys, for N queries and M blocks; `AHEAD`: the blocks behind these are asked for from memory
template <int N, int M, bool AHEAD, class T> void some_scores(const T* queries, const T* keys, long width, float* scores, long room) {
    Vec sum[N][M] = {};
    for (long d = 0; d < width; d += 2)
        for (int m = 0; m < M; m++) {
            if (AHEAD) __builtin_prefetch(keys + ((M + m) * width + d) * W, 0, 2);
            const auto two = pair(keys + (m * width + d) * W);
            for (int n = 0; n < N; n++) two.add(sum[n][m], queries + n * width + d);
        }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) save(sum[n][m], scores + n * room + m * W);
}

template <int N, bool AHEAD, class T> void scores_of(const T* queries, const T* keys, long width, long blocks, float* scores, long room) {
    long block = 0;
    for (; block + 2 <= blocks; block += 2) some_scores<N, 2, AHEAD>(queries, keys + block * W * width, width, scores + block * W, room);
    if (block < blocks) some_scores<N, 1, AHEAD>(queries, keys + block * W * width, width, scores + block * W, room);
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
    for (; d + SUMS * W <= end; d += SUMS * W) some_read<N, SUMS>(weights, room, values + 2 * d, width, positions, read + d, read_row);
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
constexpr long FEW_STEPS = 3, MOST_STEPS = 9;  // of 32 numbers, whose weights are multiplied with 32 rows, or with more of them in turn: 6 and 18 KiB
struct alignas(64) Line {
    Half numbers[32];
};
struct alignas(64) Sums {
    float numbers[32 * 2 * W];
};

// What was written before stands in memory: the compiler is not told what loads of tiles read.
inline void written() { asm volatile("" ::: "memory"); }

bool tiles_allowed() {
    static const bool is_allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // Linux lends them on demand
    return is_allowed;
}

// Tiles of rows of 64 bytes for products of up to 32 rows of one side with 2 x 16 columns of the other: until they are given back.
void shape_tiles(long count) {
    const long first = std::min(16L, count), other = std::max(1L, count - 16), rows[] = {first, first, other, other, first, other, 16, 16};
    alignas(64) uint8_t shape[64] = {1};
    for (int tile = 0; tile < 8; tile++) {
        shape[16 + 2 * tile] = 64;
        shape[48 + tile] = uint8_t(rows[tile]);
    }
    _tile_loadconfig(shape);
}

// c [count, 32] = a [count, depth] · b [depth, 32], added to c where it `adds`. Tiles of b, in pairs of its rows as keys and values lie, have
// rows `b_row` apart; the one of 16 columns further is at `b_next`, that of 32 rows further at `b_step`.
void by_tiles(const Half* a, long a_row, long count, const Half* b, long b_row, long b_next, long b_step, long depth, float* c, long c_row,
              bool adds) {
    const bool has_other = count > 16;
    written();
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
}

void scores_by_tiles(const Half* queries, long count, const Half* keys, long width, long blocks, float* scores, long room) {
    shape_tiles(count);
    for (long block = 0; block < blocks; block += 2)
        by_tiles(queries, width, count, keys + block * W * width, 2 * W, W * width, 32 * W, width, scores + block * W, room, false);
    _tile_release();
}

void read_by_tiles(const Half* weights, long count, long room, const Half* values, long width, long end, long positions, float* read,
                   long read_row) {
    shape_tiles(count);
    for (long d = 0; d < end; d += 2 * W)
        by_tiles(weights, room, count, values + 2 * d, 2 * width, 2 * W, 32 * width, positions, read + d, read_row, true);
    _tile_release();
}

bool tiles_fit(const Half*, long width) { return width % 32 == 0 && tiles_allowed(); }

// sums = rows · weights for rows of `width` numbers and outputs in pairs of blocks of 16, which lie as keys do. `blocks(pair)` gives a pair's
// weights, `then(pair, row, count, sums)` takes the sums [count, 32] of up to 32 rows. A stretch of the width at a time, so that its weights
// stay in the nearest cache for all rows, while those of the next stretch are asked for from memory.
template <class Blocks, class Then>
void products_by_tiles(const Half* x, long rows, long width, long pairs, Blocks blocks, Then then) {
    const long chunks = (rows + 31) / 32, steps = width / 32, most = chunks > 1 ? MOST_STEPS : FEW_STEPS, stretches = (steps + most - 1) / most;
    const auto step_at = [=](long stretch) { return steps * stretch / stretches; };
    const std::unique_ptr<Line[]> packed(new Line[chunks * steps * 32]);  // [chunk, step, row]: in the order of tiles
#pragma omp parallel
    {
        const std::unique_ptr<Sums[]> sums(new Sums[chunks]);
        shape_tiles(std::min(32L, rows));
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++)
            for (long k = 0; k < steps; k++)
                std::memcpy(&packed[(row / 32 * steps + k) * 32 + row % 32], x + row * width + 32 * k, sizeof(Line));
#pragma omp for schedule(static)
        for (long pair = 0; pair < pairs; pair++) {
            const auto now = blocks(pair), behind = blocks(std::min(pair + 1, pairs - 1));
            for (long stretch = 0; stretch < stretches; stretch++) {
                const long first = step_at(stretch), end = step_at(stretch + 1);
                const bool is_last = stretch + 1 == stretches;
                const auto next = is_last ? behind : now;
                const long next_first = is_last ? 0 : end, next_steps = is_last ? step_at(1) : step_at(stretch + 2) - end;
                const long turns = chunks * (end - first), lines = (16 * next_steps + turns - 1) / turns;  // of 32 numbers, for each turn
                const Half *one = next.first + 512 * next_first, *two = next.second + 512 * next_first, *asked = one + 512 * next_steps;
                for (long chunk = 0; chunk < chunks; chunk++) {
                    const bool has_other = rows > 32 * chunk + 16;
                    float* c = sums[chunk].numbers;
                    const Line* a = &packed[(chunk * steps + first) * 32];
                    written();
                    if (stretch == 0) {
                        _tile_zero(0);
                        _tile_zero(1);
                        _tile_zero(2);
                        _tile_zero(3);
                    } else if (chunks > 1) {  // else they are there still
                        _tile_loadd(0, c, 128);
                        _tile_loadd(1, c + W, 128);
                        _tile_loadd(2, c + 32 * W, 128);
                        _tile_loadd(3, c + 33 * W, 128);
                    }
                    for (long k = first; k < end; k++, a += 32) {
                        for (long line = 0; line < lines && one < asked; line++, one += 32, two += 32) {
                            __builtin_prefetch(one, 0, 3);
                            __builtin_prefetch(two, 0, 3);
                        }
                        _tile_loadd(4, a, 64);
                        _tile_loadd(6, now.first + 512 * k, 64);
                        _tile_dpbf16ps(0, 4, 6);
                        _tile_loadd(7, now.second + 512 * k, 64);
                        _tile_dpbf16ps(1, 4, 7);
                        if (!has_other) continue;
                        _tile_loadd(5, a + 16, 64);
                        _tile_dpbf16ps(2, 5, 6);
                        _tile_dpbf16ps(3, 5, 7);
                    }
                    if (chunks == 1 && !is_last) continue;
                    _tile_stored(0, c, 128);
                    _tile_stored(1, c + W, 128);
                    if (has_other || chunks > 1) {
                        _tile_stored(2, c + 32 * W, 128);
                        _tile_stored(3, c + 33 * W, 128);
                    }
                    if (is_last) then(pair, 32 * chunk, std::min(32L, rows - 32 * chunk), c);
                }
            }
        }
        _tile_release();
    }
}
#else
bool tiles_fit(const Half*, long) { return false; }
void scores_by_tiles(...) {}
void read_by_tiles(...) {}
template <class Blocks, class Then> void products_by_tiles(const Half*, long, long, long, Blocks, Then) {}
#endif
bool tiles_fit(const float*, long) { return false; }
void scores_by_tiles(const float*, long, const float*, long, long, float*, long) {}
void read_by_tiles(const float*, long, long, const float*, long, long, long, float*, long) {}

constexpr long FEW = 6;  // queries from which tiles are faster

template <bool AHEAD = false, class T> void scores_over(const T* queries, long count, const T* keys, long width, long blocks, float* scores, long room) {
    if (count >= FEW && tiles_fit(queries, width)) {
        for (long n = 0; n < count; n += 32)
            scores_by_tiles(queries + n * width, std::min(32L, count - n), keys, width, blocks, scores + n * room, room);
        return;
    }
    some_at_a_time(count, [&](auto some, long n) { scores_of<some(), AHEAD>(queries + n * width, keys, width, blocks, scores + n * room, room); });
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

// The first `length` of `blocks` blocks of scores count: the others become -inf. Returns the highest.
float top_of(float* scores, long length, long blocks) {
    Vec top = Vec{} + LEAST;
    for (long t = 0; t < blocks * W; t += W) {
        LooseVec& some = *reinterpret_cast<LooseVec*>(scores + t);
        if (t + W > length) some = LANES < int32_t(length - t) ? some : Vec{} + LEAST;
        top = max_of(top, some);
    }
    return top_of(top);
}

// Ask for memory that will be read soon: into the second cache, or the first.
template <int NEAR = 2, class T> inline void expect(const T* from, long count) {
    for (long line = 0; line < count * long(sizeof(T)); line += 64) __builtin_prefetch(reinterpret_cast<const char*>(from) + line, 0, NEAR);
}

}  // namespace
