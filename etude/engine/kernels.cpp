// A decoding step on a CPU but for its large matrix products: norms, rotary positions, attention of one token for each row over a prompt that
// several rows share and over what each has drawn, products of few rows, and drawing the next token. Plain C++ for any processor, vectorised
// by the compiler; `kernels.py` builds it, hands tensors over, and says what goes in and out. All sums are in float32.
//
// Keys lie in blocks of 16 positions, [row, K, position / 16, D, 16], so that 16 scores are one vector; bfloat16 keys as pairs of widths,
// [.., D / 2, 16, 2], and values as pairs of positions, [row, K, position / 2, D, 2], so that one load gives two vectors of float32.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_TILES
#endif

namespace {

constexpr int W = 16;  // numbers in a vector, and positions in a block
typedef float Vec __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef Vec LooseVec __attribute__((aligned(4)));
typedef uint16_t Shorts __attribute__((vector_size(2 * W)));
typedef Ints LooseInts __attribute__((aligned(2)));
typedef Shorts LooseShorts __attribute__((aligned(2)));
constexpr Ints LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
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

inline Vec max_of(Vec a, Vec b) { return a > b ? a : b; }
template <class Join> inline float joined(Vec x, Join join) {
    x = join(x, __builtin_shuffle(x, LANES ^ 8));
    x = join(x, __builtin_shuffle(x, LANES ^ 4));
    x = join(x, __builtin_shuffle(x, LANES ^ 2));
    return join(x, __builtin_shuffle(x, LANES ^ 1))[0];
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
    const Ints bits = reinterpret_cast<Ints>(x);
    *reinterpret_cast<LooseShorts*>(to) = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Shorts);
}

// ---------------------------------------------------------------------- attention

template <class T> void put(T* keys, T* values, long width, long position, const T* key, const T* value) {
    T *__restrict to_key = keys + key_place<T>(width, position, 0), *__restrict to_value = values + value_place<T>(width, position, 0);
    const long odd_key = key_place<T>(width, 0, 1), odd_value = value_place<T>(width, 0, 1);
    for (long d = 0; d < width; d += 2) {
        to_key[d * W] = key[d];
        to_key[d * W + odd_key] = key[d + 1];
    }
    for (long d = 0; d < width; d += W)
        for (long i = 0; i < W; i++) to_value[2 * d + i * odd_value] = value[d + i];
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
void some_read(const T* weights, long room, const T* values, long width, long positions, float* read) {
    Vec sum[N][M];
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) sum[n][m] = *reinterpret_cast<LooseVec*>(read + n * width + m * W);
    for (long t = 0; t < positions; t += 2, values += 2 * width)
        for (int m = 0; m < M; m++) {
            const auto two = pair(values + m * 2 * W);
            for (int n = 0; n < N; n++) two.add(sum[n][m], weights + n * room + t);
        }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) *reinterpret_cast<LooseVec*>(read + n * width + m * W) = sum[n][m];
}

template <int N, class T> void read_of(const T* weights, long room, const T* values, long width, long positions, float* read) {
    long d = 0;
    for (; d + 4 * W <= width; d += 4 * W) some_read<N, 4>(weights, room, values + 2 * d, width, positions, read + d);
    for (; d < width; d += W) some_read<N, 1>(weights, room, values + 2 * d, width, positions, read + d);
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

void read_by_tiles(const Half* weights, long count, long room, const Half* values, long width, long positions, float* read) {
    for (long d = 0; d < width; d += 2 * W)
        by_tiles(weights, room, count, values + 2 * d, 2 * width, 2 * W, 32 * width, positions, read + d, width, true);
}

bool tiles_fit(const Half*, long width) { return width % 32 == 0 && tiles_allowed(); }
#else
bool tiles_fit(const Half*, long) { return false; }
void scores_by_tiles(...) {}
void read_by_tiles(...) {}
#endif
bool tiles_fit(const float*, long) { return false; }
void scores_by_tiles(const float*, long, const float*, long, long, float*, long) {}
void read_by_tiles(const float*, long, long, const float*, long, long, float*) {}

constexpr long FEW = 6;  // queries from which tiles are faster

template <class T> void scores_over(const T* queries, long count, const T* keys, long width, long blocks, float* scores, long room) {
    if (count >= FEW && tiles_fit(queries, width)) {
        for (long n = 0; n < count; n += 32)
            scores_by_tiles(queries + n * width, std::min(32L, count - n), keys, width, blocks, scores + n * room, room);
        return;
    }
    some_at_a_time(count, [&](auto some, long n) { scores_of<some()>(queries + n * width, keys, width, blocks, scores + n * room, room); });
}

template <class T> void read_from(const T* weights, long count, long room, const T* values, long width, long blocks, float* read) {
    if (count >= FEW && tiles_fit(weights, width)) {
        for (long n = 0; n < count; n += 32)
            read_by_tiles(weights + n * room, std::min(32L, count - n), room, values, width, blocks * W, read + n * width);
        return;
    }
    some_at_a_time(count, [&](auto some, long n) { read_of<some()>(weights + n * room, room, values, width, blocks * W, read + n * width); });
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

// Ask for memory that will be read soon.
template <class T> inline void expect(const T* from, long count) {
    for (long line = 0; line < count * long(sizeof(T)); line += 64) __builtin_prefetch(reinterpret_cast<const char*>(from) + line, 0, 2);
}

template <class T> struct Stretch {  // keys and values of rows: [rows, K, capacity, D] in blocks
    T *keys, *values;
    long capacity;
};

// Blocks for so many positions, which are read for so many queries: an even number for tiles. What nobody has put there is masked.
inline long blocks_of(long length, long count) { return count < FEW ? (length + W - 1) / W : (length + 2 * W - 1) / (2 * W) * 2; }

template <class T>
void attend(const T* queries, long query_row, long query_head, const T* keys, const T* values, long key_row, long key_head,
            Stretch<T> own, const int64_t* slots, const int64_t* drawn, Stretch<T> prompts, const int64_t* seen, const int64_t* items, long num_items,
            long heads, long kv_heads, long width, float scale, T* read) {
    const long share = heads / kv_heads;
#pragma omp parallel if (num_items > 1)
    {
        std::vector<float> floats;
        std::vector<T> operands;
#pragma omp for schedule(dynamic)
        for (long item = 0; item < num_items * kv_heads; item++) {
            const long head = item % kv_heads, prompt = items[item / kv_heads * 3];
            const long first = items[item / kv_heads * 3 + 1], end = items[item / kv_heads * 3 + 2], count = (end - first) * share;
            const long end_own = own.keys ? end : first;  // rows that have keys of their own
            const long blocks = blocks_of(*std::max_element(seen + first, seen + end), count);
            const long own_blocks = own.keys ? blocks_of(*std::max_element(drawn + first, drawn + end) + 1, share) : 0, room = (blocks + own_blocks) * W;
            floats.resize(count * (width + room + 1));
            operands.resize(count * (width + room));
            float *found = floats.data(), *scores = found + count * width, *sums = scores + count * room;
            std::fill_n(found, count * width, 0.0f);
            T *asked = operands.data(), *weights = asked + count * width;
            const auto own_at = [&](long row) { return (slots[row] * kv_heads + head) * own.capacity * width; };
            const long prompt_at = (prompt * kv_heads + head) * prompts.capacity * width;
            for (long n = 0; n < count; n++) {
                const T* query = queries + (first + n / share) * query_row + (head * share + n % share) * query_head;
                std::copy(query, query + width, asked + n * width);
            }
            for (long row = first; row < end_own; row++) expect(own.keys + own_at(row), (drawn[row] + W) / W * W * width);
            scores_over(asked, count, prompts.keys + prompt_at, width, blocks, scores, room);
            for (long row = first; row < end_own; row++) expect(own.values + own_at(row), (drawn[row] + W) / W * W * width);
            for (long row = first; row < end_own; row++) {
                const long from = row * key_row + head * key_head, n = (row - first) * share;
                put(own.keys + own_at(row), own.values + own_at(row), width, drawn[row], keys + from, values + from);
                scores_over(asked + n * width, share, own.keys + own_at(row), width, blocks_of(drawn[row] + 1, share), scores + n * room + blocks * W, room);
            }
            for (long n = 0; n < count; n++) {
                float *over_prompt = scores + n * room, *over_own = over_prompt + blocks * W;
                const long row = first + n / share;
                const float top = std::max(top_of(over_prompt, seen[row], blocks), top_of(over_own, own.keys ? drawn[row] + 1 : 0, own_blocks));
                sums[n] = weights_of(over_prompt, blocks + own_blocks, top, scale, weights + n * room);
            }
            read_from(weights, count, room, prompts.values + prompt_at, width, blocks, found);
            for (long row = first; row < end_own; row++) {
                const long n = (row - first) * share;
                read_from(weights + n * room + blocks * W, share, room, own.values + own_at(row), width, blocks_of(drawn[row] + 1, share), found + n * width);
            }
            for (long n = 0; n < count; n++) {
                T* to = read + ((first + n / share) * heads + head * share + n % share) * width;
                for (long d = 0; d < width; d++) narrow(found[n * width + d] / sums[n], to + d);
            }
        }
    }
}

// ---------------------------------------------------------------------- matrix products

enum Then { NOTHING, ADD, MULTIPLY, SWISH };

// to = then(x Wᵀ + bias, other), for weights that lie as keys do: an output is a position. Faster than a library's for few rows, since
// weights are read in order, and asked for in time.
void product(const Half* x, long rows, long width, const Half* weights, long outputs, const Half* bias, int then, const Half* other,
             Half* to) {
#pragma omp parallel for schedule(static)
    for (long out = 0; out < outputs; out += 2 * W) {
        for (long n = 0; n < rows; n += 32) {
            const long count = std::min(32L, rows - n);
            alignas(64) float sums[32 * 2 * W];
            scores_over(x + n * width, count, weights + out * width, width, 2, sums, 2 * W);
            for (long i = 0; i < count * 2 * W; i += W) {
                const long column = out + i % (2 * W), at = (n + i / (2 * W)) * outputs + column;
                Vec y = load(sums + i);
                if (bias) y += load(bias + column);
                if (then == ADD) y += load(other + at);
                if (then == MULTIPLY) y *= load(other + at);
                if (then == SWISH) {
                    const Vec e = exp_of(y < 0 ? y : -y);
                    y *= (y < 0 ? e : Vec{} + 1.0f) / (e + 1.0f);
                }
                save(y, to + at);
            }
        }
    }
}

// ---------------------------------------------------------------------- norms and positions

template <class T> inline float inverse_norm(const T* x, long width, float epsilon) {
    Vec sums = {};
    long d = 0;
    for (; d + W <= width; d += W) sums += load(x + d) * load(x + d);
    float sum = sum_of(sums);
    for (; d < width; d++) sum += wide(x[d]) * wide(x[d]);
    return 1 / std::sqrt(sum / width + epsilon);
}

template <class T> void rms_norm(const T* x, long rows, long width, const T* weight, float epsilon, T* to) {
#pragma omp parallel for if (rows > 4)
    for (long row = 0; row < rows; row++) {
        const T* from = x + row * width;
        const float factor = inverse_norm(from, width, epsilon);
        long d = 0;
        for (; d + W <= width; d += W) save(load(from + d) * factor * load(weight + d), to + row * width + d);
        for (; d < width; d++) narrow(wide(from[d]) * factor * wide(weight[d]), to + row * width + d);
    }
}

// Two halves of a head at `d` turned against each other; a vector of them, or one.
template <class T> inline void turn(T* x, long half, long d, const T* c, const T* s, const T* weight, float factor) {
    Vec one = load(x + d) * factor, two = load(x + d + half) * factor;
    if (weight) one *= load(weight + d), two *= load(weight + d + half);
    save(one * load(c + d) - two * load(s + d), x + d);
    save(two * load(c + d + half) + one * load(s + d + half), x + d + half);
}
template <class T> inline void turn_one(T* x, long half, long d, const T* c, const T* s, const T* weight, float factor) {
    float one = wide(x[d]) * factor, two = wide(x[d + half]) * factor;
    if (weight) one *= wide(weight[d]), two *= wide(weight[d + half]);
    narrow(one * wide(c[d]) - two * wide(s[d]), x + d);
    narrow(two * wide(c[d + half]) + one * wide(s[d + half]), x + d + half);
}

template <class T>
void rotate(T* states, long rows, long row_stride, long heads, long kv_heads, long width, const T* cosines, const T* sines,
            const T* query_weight, const T* key_weight, float epsilon) {
    const long half = width / 2;
#pragma omp parallel for if (rows > 4)
    for (long row = 0; row < rows; row++)
        for (long head = 0; head < heads + kv_heads; head++) {
            T* x = states + row * row_stride + head * width;
            const T *c = cosines + row * width, *s = sines + row * width, *weight = head < heads ? query_weight : key_weight;
            const float factor = weight ? inverse_norm(x, width, epsilon) : 1;
            long d = 0;
            for (; d + W <= half; d += W) turn(x, half, d, c, s, weight, factor);
            for (; d < half; d++) turn_one(x, half, d, c, s, weight, factor);
        }
}

// ---------------------------------------------------------------------- the next token

constexpr long TOKENS = 256;  // in a block of the two-level inverse CDF

template <class T> inline double mass_of(const T* logits, long start, long end, float inverse_temperature, float top) {
    Vec sum = {};
    long v = start;
    for (; v + W <= end; v += W) sum += exp_of(load(logits + v) * inverse_temperature - top);
    double found = sum_of(sum);
    for (; v < end; v++) found += std::exp(wide(logits[v]) * inverse_temperature - top);
    return found;
}

// The token at which the cumulated weights pass `target`; never one without weight.
template <class T>
long token_at(const T* logits, long vocabulary, float inverse_temperature, float top, const double* masses, double target) {
    const long blocks = (vocabulary + TOKENS - 1) / TOKENS;
    const long block = std::min(long(std::upper_bound(masses, masses + blocks, target) - masses), blocks - 1);
    const auto weight = [&](long v) { return std::exp(wide(logits[v]) * inverse_temperature - top); };
    double sum = block ? masses[block - 1] : 0;
    long chosen = block * TOKENS;
    for (long v = block * TOKENS; v < std::min(vocabulary, (block + 1) * TOKENS); v++) {
        const double mine = weight(v);
        if (mine > 0) chosen = v;
        sum += mine;
        if (sum > target) break;
    }
    return chosen;
}

template <class T>
void sample(const T* logits, long rows, long vocabulary, float inverse_temperature, const double* uniforms, const int64_t* row_of,
            long draws, int64_t* tokens, float* logprobs) {
    const long blocks = (vocabulary + TOKENS - 1) / TOKENS;
    std::vector<double> cumulated(rows * blocks);
    std::vector<float> tops(rows);
    std::vector<int64_t> best(rows);
#pragma omp parallel for if (rows > 1)
    for (long row = 0; row < rows; row++) {
        const T* mine = logits + row * vocabulary;
        Vec most = Vec{} + LEAST;
        long v = 0;
        for (; v + W <= vocabulary; v += W) most = max_of(most, load(mine + v));
        float top = top_of(most);
        for (; v < vocabulary; v++) top = std::max(top, wide(mine[v]));
        best[row] = uniforms ? 0 : std::find_if(mine, mine + vocabulary, [top](T x) { return wide(x) == top; }) - mine;
        tops[row] = top *= inverse_temperature;
        double sum = 0;
        for (long block = 0; block < blocks; block++) {
            sum += mass_of(mine, block * TOKENS, std::min(vocabulary, (block + 1) * TOKENS), inverse_temperature, top);
            cumulated[row * blocks + block] = sum;
        }
    }
#pragma omp parallel for if (draws > 16)
    for (long draw = 0; draw < draws; draw++) {
        const long row = row_of[draw];
        const T* mine = logits + row * vocabulary;
        const double *masses = cumulated.data() + row * blocks, all = masses[blocks - 1];
        const long chosen = uniforms ? token_at(mine, vocabulary, inverse_temperature, tops[row], masses, uniforms[draw] * all) : best[row];
        tokens[draw] = std::min(chosen, vocabulary - 1);  // where weights are no numbers, none is right
        logprobs[draw] = wide(mine[tokens[draw]]) * inverse_temperature - tops[row] - float(std::log(all));
    }
}

}  // namespace

#define FOR_TYPE(T, NAME)                                                                                                              \
    extern "C" void put_##NAME(T* keys, T* values, long capacity, const int64_t* rows, const int64_t* positions, long count,          \
                               const T* key, const T* value, long row, long head, long kv_heads, long width) {                        \
        _Pragma("omp parallel for if (count > 4)")                                                                                     \
        for (long n = 0; n < count; n++)                                                                                               \
            for (long k = 0; k < kv_heads; k++) {                                                                                      \
                const long at = (rows[n] * kv_heads + k) * capacity * width, from = n * row + k * head;                               \
                put(keys + at, values + at, width, positions[n], key + from, value + from);                                           \
            }                                                                                                                          \
    }                                                                                                                                  \
    extern "C" void repeat_##NAME(T* states, long row, long head, const int64_t* from, const int64_t* to, long count, long kv_heads,   \
                                  long size) {                                                                                        \
        _Pragma("omp parallel for")                                                                                                    \
        for (long n = 0; n < count; n++)                                                                                               \
            for (long k = 0; k < kv_heads; k++)                                                                                        \
                std::copy_n(states + from[n] * row + k * head, size, states + to[n] * row + k * head);                                 \
    }                                                                                                                                  \
    extern "C" void attend_##NAME(const T* queries, long query_row, long query_head, const T* keys, const T* values, long key_row,    \
                                  long key_head, T* own_keys, T* own_values, long own_capacity, const int64_t* slots, const int64_t* drawn, T* prompt_keys,  \
                                  T* prompt_values, long prompt_capacity, const int64_t* seen, const int64_t* items, long num_items, \
                                  long heads, long kv_heads, long width, float scale, T* read) {                                      \
        attend(queries, query_row, query_head, keys, values, key_row, key_head, Stretch<T>{own_keys, own_values, own_capacity}, slots, drawn, \
               Stretch<T>{prompt_keys, prompt_values, prompt_capacity}, seen, items, num_items, heads, kv_heads, width, scale,    \
               read);                                                                                                                  \
    }                                                                                                                                  \
    extern "C" void rms_norm_##NAME(const T* x, long rows, long width, const T* weight, float epsilon, T* to) {                       \
        rms_norm(x, rows, width, weight, epsilon, to);                                                                                 \
    }                                                                                                                                  \
    extern "C" void rotate_##NAME(T* states, long rows, long row_stride, long heads, long kv_heads, long width, const T* cosines,      \
                                  const T* sines, const T* query_weight, const T* key_weight, float epsilon) {                        \
        rotate(states, rows, row_stride, heads, kv_heads, width, cosines, sines, query_weight, key_weight, epsilon);                  \
    }                                                                                                                                  \
    extern "C" void sample_##NAME(const T* logits, long rows, long vocabulary, float inverse_temperature, const double* uniforms,     \
                                  const int64_t* row_of, long draws, int64_t* tokens, float* logprobs) {                              \
        sample(logits, rows, vocabulary, inverse_temperature, uniforms, row_of, draws, tokens, logprobs);                             \
    }

FOR_TYPE(float, float32)
FOR_TYPE(Half, bfloat16)

extern "C" void product_bfloat16(const Half* x, long rows, long width, const Half* weights, long outputs, const Half* bias, int then,
                                 const Half* other, Half* to) {
    product(x, rows, width, weights, outputs, bias, then, other, to);
}
extern "C" int has_tiles() { return tiles_fit(static_cast<Half*>(nullptr), 32); }
