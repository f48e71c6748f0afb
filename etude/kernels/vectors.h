// Numbers as many at a time as a processor's vectors hold: of longer ones than its own the compiler makes several, which it keeps in memory.
// float32 and bfloat16 are read and written alike; sums are in float32.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

// W: numbers in a vector. SUMS: how many for each of six rows stay in registers.
#if defined(__AVX512F__)
constexpr int W = 16, SUMS = 4;
#define EACH_LANE 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif defined(__AVX__)
constexpr int W = 8, SUMS = 2;
#define EACH_LANE 0, 1, 2, 3, 4, 5, 6, 7
#else
constexpr int W = 4, SUMS = 2;
#define EACH_LANE 0, 1, 2, 3
#endif
typedef float Vec __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef Vec LooseVec __attribute__((aligned(4)));
typedef uint16_t Shorts __attribute__((vector_size(2 * W)));
typedef Ints LooseInts __attribute__((aligned(2)));
typedef Shorts LooseShorts __attribute__((aligned(2)));
constexpr Ints LANES = {EACH_LANE};
constexpr float LEAST = -std::numeric_limits<float>::infinity();

struct Half {
    uint16_t bits;
};

inline float wide(float x) { return x; }
inline float wide(Half x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float found;
    std::memcpy(&found, &bits, 4);
    return found;
}
inline void narrow(float x, float* to) { *to = x; }
inline void narrow(float x, Half* to) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    to->bits = uint16_t(x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline Vec max_of(Vec a, Vec b) { return a > b ? a : b; }
template <int HALF = W / 2, class Join> inline float joined(Vec x, Join join) {
    if constexpr (HALF > 0)
        return joined<HALF / 2>(join(x, __builtin_shuffle(x, LANES ^ HALF)), join);
    else
        return x[0];
}
inline float sum_of(Vec x) {
    return joined(x, [](Vec a, Vec b) { return a + b; });
}
inline float top_of(Vec x) { return joined(x, max_of); }

// exp for x <= 0, within 2 units in the last place; below -87 it is 0 (Cephes' expf).
inline Vec exp_of(Vec x) {
    const Vec shifted = x * 1.44269504088896341f + 12582912.0f, n = shifted - 12582912.0f;  // the nearest whole number
    const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vec y = Vec{} + 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    const Ints power = (reinterpret_cast<Ints>(shifted) << 23) + (127 << 23);  // the bits of 2ⁿ
    return x < Vec{} - 87.0f ? Vec{} : y * reinterpret_cast<Vec>(power);
}

// Bits of numbers whose upper halves are the nearest numbers of half the length, ties to even.
inline Ints rounded(Ints bits) { return bits + 0x7fff + ((bits >> 16) & 1); }

inline Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
inline Vec load(const Half* from) {
    const Shorts bits = *reinterpret_cast<const LooseShorts*>(from);
    return reinterpret_cast<Vec>(__builtin_convertvector(bits, Ints) << 16);
}
inline void save(Vec x, float* to) { *reinterpret_cast<LooseVec*>(to) = x; }
inline void save(Vec x, Half* to) {  // as `narrow`, of numbers
#ifdef __AVX512BF16__
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh((__m512)x));
    return;
#endif
    *reinterpret_cast<LooseShorts*>(to) = __builtin_convertvector(rounded(reinterpret_cast<Ints>(x)) >> 16, Shorts);
}

// Two vectors beside each other, number by number for bfloat16, one behind the other for float32.
inline void save_pair(Vec one, Vec two, float* to) {
    save(one, to);
    save(two, to + W);
}
inline void save_pair(Vec one, Vec two, Half* to) {
    Half both[2][W];
    save(one, both[0]);
    save(two, both[1]);
    const Ints first = __builtin_convertvector(*reinterpret_cast<const LooseShorts*>(both[0]), Ints);
    const Ints second = __builtin_convertvector(*reinterpret_cast<const LooseShorts*>(both[1]), Ints);
    *reinterpret_cast<LooseInts*>(to) = first | (second << 16);
}

inline Vec sigmoid_of(Vec x) {
    const Vec e = exp_of(x < 0 ? x : -x);
    return (x < 0 ? e : Vec{} + 1.0f) / (e + 1.0f);
}

// weights = exp((score - top) · scale); returns their sum
template <class T> float weights_of(const float* scores, long blocks, float top, float scale, T* weights) {
    Vec sums = {};
    for (long t = 0; t < blocks * W; t += W) {
        const Vec weight = exp_of((load(scores + t) - top) * scale);
        save(weight, weights + t);
        sums += weight;
    }
    return sum_of(sums);
}

// 1 / √(mean x² + ε)
template <class T> inline float inverse_norm(const T* x, long width, float epsilon) {
    Vec sums = {};
    long d = 0;
    for (; d + W <= width; d += W) sums += load(x + d) * load(x + d);
    float sum = sum_of(sums);
    for (; d < width; d++) sum += wide(x[d]) * wide(x[d]);
    return 1 / std::sqrt(sum / width + epsilon);
}

}  // namespace
