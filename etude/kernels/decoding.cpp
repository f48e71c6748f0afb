// A decoding step on a CPU but for its large matrix products: norms, rotary positions, attention of one token for each row over a prompt that
// several rows share and over what each has drawn, products of few rows, and drawing the next token. `decoding.py` hands tensors over, and
// says what goes in and out.

#include "products.h"
#include "pages.h"

namespace {

// ---------------------------------------------------------------------- attention

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
            const auto expect_of = [&](const T* states, long row) {
                if (row < end_own) expect(states + own_at(row), (drawn[row] + W) / W * W * width);
            };
            expect_of(own.keys, first);
            scores_over(asked, count, prompts.keys + prompt_at, width, blocks, scores, room);
            for (long row = first; row < end_own; row++) {  // memory is asked for a row ahead, while another's scores are taken
                expect_of(own.keys, row + 1);
                expect_of(own.values, row);
                const long from = row * key_row + head * key_head, n = (row - first) * share;
                put_key(own.keys + own_at(row), width, drawn[row], keys + from);
                put_value(own.values + own_at(row), width, drawn[row], values + from);
                scores_over(asked + n * width, share, own.keys + own_at(row), width, blocks_of(drawn[row] + 1, share), scores + n * room + blocks * W, room);
            }
            for (long n = 0; n < count; n++) {
                float *over_prompt = scores + n * room, *over_own = over_prompt + blocks * W;
                const long row = first + n / share;
                const float top = std::max(top_of(over_prompt, seen[row], blocks), top_of(over_own, own.keys ? drawn[row] + 1 : 0, own_blocks));
                sums[n] = weights_of(over_prompt, blocks + own_blocks, top, scale, weights + n * room);
            }
            read_from(weights, count, room, prompts.values + prompt_at, width, width, blocks, found, width);
            for (long row = first; row < end_own; row++) {
                const long n = (row - first) * share;
                read_from(weights + n * room + blocks * W, share, room, own.values + own_at(row), width, width,
                          blocks_of(drawn[row] + 1, share), found + n * width, width);
            }
            for (long n = 0; n < count; n++) {
                T* to = read + ((first + n / share) * heads + head * share + n % share) * width;
                for (long d = 0; d < width; d += W) save(load(found + n * width + d) / sums[n], to + d);
            }
        }
    }
}

// ---------------------------------------------------------------------- matrix products

enum Then { NOTHING, ADD, MULTIPLY, SWISH };

// then(y + bias, other)
template <class T> inline Vec after(Vec y, const T* bias, int then, const T* other) {
    if (bias) y += load(bias);
    if (then == ADD) y += load(other);
    if (then == MULTIPLY) y *= load(other);
    if (then == SWISH) y *= sigmoid_of(y);
    return y;
}

// to = then(x Wᵀ + bias, other), for weights that lie as keys do: an output is a position. Faster than a library's for not too many rows,
// since weights are read in order, and asked for in time.
void product(const Half* x, long rows, long width, const Half* weights, long outputs, const Half* bias, int then, const Half* other,
             Half* to) {
    const auto keep = [=](long pair, long first, long count, const float* sums) {
        for (long i = 0; i < count * 2 * W; i += W) {
            const long column = pair * 2 * W + i % (2 * W), at = (first + i / (2 * W)) * outputs + column;
            save(after(load(sums + i), bias ? bias + column : nullptr, then, other ? other + at : nullptr), to + at);
        }
    };
    if (rows >= FEW && tiles_fit(x, width)) {
        const auto blocks = [=](long pair) { return std::pair(weights + pair * 2 * W * width, weights + (2 * pair + 1) * W * width); };
        return products_by_tiles(x, rows, width, outputs / (2 * W), blocks, keep);
    }
#pragma omp parallel for schedule(static)
    for (long pair = 0; pair < outputs / (2 * W); pair++)
        for (long n = 0; n < rows; n += 32) {
            alignas(64) float sums[32 * 2 * W];
            const long count = std::min(32L, rows - n);
            scores_over<true>(x + n * width, count, weights + pair * 2 * W * width, width, 2, sums, 2 * W);
            keep(pair, n, count, sums);
        }
}

// to = SiLU(x Gᵀ + its bias) · (x Uᵀ + its bias), rounded as the two products are.
void gated(const Half* x, long rows, long width, const Half* gate, const Half* gate_bias, const Half* up, const Half* up_bias, long outputs,
           Half* to) {
    if (rows < FEW || !tiles_fit(x, width)) {
        product(x, rows, width, gate, outputs, gate_bias, SWISH, nullptr, to);
        return product(x, rows, width, up, outputs, up_bias, MULTIPLY, to, to);
    }
    const auto blocks = [=](long block) { return std::pair(gate + block * W * width, up + block * W * width); };
    products_by_tiles(x, rows, width, outputs / W, blocks, [=](long block, long first, long count, const float* sums) {
        for (long n = 0; n < count; n++) {
            Half factor[W];
            save(after<Half>(load(sums + n * 2 * W), gate_bias ? gate_bias + block * W : nullptr, SWISH, nullptr), factor);
            save(after(load(sums + n * 2 * W + W), up_bias ? up_bias + block * W : nullptr, MULTIPLY, factor), to + (first + n) * outputs + block * W);
        }
    });
}

constexpr long PANEL = COLUMNS * W, DEPTH = 1024, CHUNK = 16 * ROWS;  // outputs, inputs and rows at a time: what stays in a core's cache

// A weight [outputs, width] as panels of outputs that lie beside each other, input by input: `to` has as many numbers.
void panels(const float* weight, long outputs, long width, float* to) {
#pragma omp parallel for schedule(static)
    for (long first = 0; first < outputs; first += PANEL) {
        const long count = std::min(PANEL, outputs - first);
        for (long tile = 0; tile < width; tile += W)
            for (long k = tile; k < std::min(tile + W, width); k++)
                for (long o = 0; o < count; o++) to[first * width + k * count + o] = weight[(first + o) * width + k];
    }
}

// As `product`, for float32 weights in panels, and any number of rows. A library lays weights out anew for every product, which for few rows
// takes as long as the product itself. What is summed for an output depends on no other row, and on no number of threads.
void product_by_panels(const float* x, long rows, long width, const float* weights, long outputs, const float* bias, int then,
                       const float* other, float* to) {
    const long chunks = (rows + CHUNK - 1) / CHUNK, wide = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for schedule(dynamic)
    for (long item = 0; item < chunks * wide; item++) {
        const long first = item / chunks * PANEL, vectors = std::min(PANEL, outputs - first) / W;
        const long start = item % chunks * rows / chunks, count = (item % chunks + 1) * rows / chunks - start, parts = (count + ROWS - 1) / ROWS;
        for (long k = 0; k < width; k += DEPTH)
            for (long part = 0; part < parts; part++) {  // about as many rows in each
                const long n = start + part * count / parts, end = start + (part + 1) * count / parts;
                sums(end - n, vectors, x + n * width + k, width, weights + first * width + k * vectors * W, vectors * W, std::min(DEPTH, width - k),
                     to + n * outputs + first, outputs, k > 0, part == 0);
            }
        if (!bias && then == NOTHING) continue;
        for (long n = start; n < start + count; n++)
            for (long o = first; o < first + vectors * W; o += W)
                save(after(load(to + n * outputs + o), bias ? bias + o : nullptr, then, other ? other + n * outputs + o : nullptr), to + n * outputs + o);
    }
}

// ---------------------------------------------------------------------- norms and positions

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

// The highest of a row's logits, and where it stands first. What is no number is never the highest.
template <class T> std::pair<float, int64_t> best_of(const T* logits, long vocabulary) {
    float top = LEAST;
    long best = 0;  // the block
    for (long start = 0; start < vocabulary; start += TOKENS) {
        const long end = std::min(vocabulary, start + TOKENS);
        Vec most = Vec{} + LEAST;
        long v = start;
        for (; v + W <= end; v += W) most = max_of(load(logits + v), most);
        float found = top_of(most);
        for (; v < end; v++) found = std::max(found, wide(logits[v]));
        if (found > top) top = found, best = start;
    }
    const T *from = logits + best, *to = logits + std::min(vocabulary, best + TOKENS);
    const long place = std::find_if(from, to, [top](T x) { return wide(x) == top; }) - logits;
    return {top, std::min(place, vocabulary - 1)};  // where all are no numbers, none is right
}

// to [groups, vocabulary] = the sums of the groups' rows, each times its weight; so much of the vocabulary at a time as a core's cache holds.
template <class T>
void weighted_sums(const T* logits, long rows, long vocabulary, const int64_t* group_of, const float* weights, long groups, float* to) {
#pragma omp parallel for schedule(static)
    for (long start = 0; start < vocabulary; start += 4 * TOKENS) {
        const long end = std::min(vocabulary, start + 4 * TOKENS);
        for (long group = 0; group < groups; group++) std::fill(to + group * vocabulary + start, to + group * vocabulary + end, 0.0f);
        for (long row = 0; row < rows; row++) {
            const T* mine = logits + row * vocabulary;
            float* sums = to + group_of[row] * vocabulary;
            long v = start;
            for (; v + W <= end; v += W) save(load(sums + v) + load(mine + v) * weights[row], sums + v);
            for (; v < end; v++) sums[v] += wide(mine[v]) * weights[row];
        }
    }
}

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
        float top;
        std::tie(top, best[row]) = best_of(mine, vocabulary);
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

// ---------------------------------------------------------------------- all layers

// What a layer consists of and has behind it, by address; what is not there is null. `decoding.py` lists them in this order.
struct Layer {
    const Half *input_norm, *project, *project_bias, *query_norm, *key_norm, *output, *output_bias;
    const Half *post_norm, *gate, *gate_bias, *up, *up_bias, *down, *down_bias;
};
struct Behind {
    Half *own_keys, *own_values, *prompt_keys, *prompt_values;
};

struct Sizes {
    long hidden, gate, heads, kv_heads, width;
};

// `attend(layer, states, stride, read)`: what is read by the queries of `states`, [rows, (H + 2 K) D], whose keys and values are kept.
template <class Attend>
void layers(Half* x, long rows, const Layer* each, long number, Sizes sizes, const Half* cosines, const Half* sines, float epsilon, Attend attend) {
    const long queries = sizes.heads * sizes.width, stride = queries + 2 * sizes.kv_heads * sizes.width;
    std::vector<Half> normed(rows * sizes.hidden), states(rows * stride), read(rows * queries), gates(rows * sizes.gate);
    for (long i = 0; i < number; i++) {
        const Layer& layer = each[i];
        rms_norm(x, rows, sizes.hidden, layer.input_norm, epsilon, normed.data());
        product(normed.data(), rows, sizes.hidden, layer.project, stride, layer.project_bias, NOTHING, nullptr, states.data());
        rotate(states.data(), rows, stride, sizes.heads, sizes.kv_heads, sizes.width, cosines, sines, layer.query_norm, layer.key_norm, epsilon);
        attend(i, states.data(), stride, read.data());
        product(read.data(), rows, queries, layer.output, sizes.hidden, layer.output_bias, ADD, x, x);
        rms_norm(x, rows, sizes.hidden, layer.post_norm, epsilon, normed.data());
        gated(normed.data(), rows, sizes.hidden, layer.gate, layer.gate_bias, layer.up, layer.up_bias, sizes.gate, gates.data());
        product(gates.data(), rows, sizes.gate, layer.down, sizes.hidden, layer.down_bias, ADD, x, x);
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
                put_key(keys + at, width, positions[n], key + from);                                                                   \
                put_value(values + at, width, positions[n], value + from);                                                             \
            }                                                                                                                          \
    }                                                                                                                                  \
    extern "C" void copy_##NAME(const T* keys, const T* values, long capacity, const int64_t* rows, const int64_t* positions, T* to_keys,   \
                                T* to_values, long to_capacity, const int64_t* to_rows, const int64_t* to_positions, long count,       \
                                long kv_heads, long width) {                                                                           \
        _Pragma("omp parallel for if (count > 4)")                                                                                     \
        for (long n = 0; n < count; n++)                                                                                               \
            for (long k = 0; k < kv_heads; k++) {                                                                                      \
                const long at = (rows[n] * kv_heads + k) * capacity * width, to = (to_rows[n] * kv_heads + k) * to_capacity * width;  \
                copy_key(keys + at, width, positions[n], to_keys + to, to_positions[n]);                                               \
                copy_value(values + at, width, positions[n], to_values + to, to_positions[n]);                                         \
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
    extern "C" void attend_slots_##NAME(const T* queries, long query_row, long query_head, const Slots<T>* slots, long rows,           \
                                        long heads, long kv_heads, long width, float scale, long sums, T* read) {                      \
        attend_slots(queries, query_row, query_head, *slots, rows, heads, kv_heads, width, scale, sums, read);                         \
    }                                                                                                                                  \
    extern "C" void best_pages_##NAME(const float* asked, const void* known, int are_sketches, long room, const int64_t* full,         \
                                      const int64_t* reads, long rows, long heads, long kv_heads, long numbers, long most,             \
                                      int64_t* chosen) {                                                                               \
        best_pages<T>(asked, known, are_sketches, room, full, reads, rows, heads, kv_heads, numbers, most, chosen);                    \
    }                                                                                                                                  \
    extern "C" void attend_pages_##NAME(const T* queries, const T* pages, long page_tokens, long unit, const int64_t* places,          \
                                        const int64_t* reads, long most, const T* open, const int64_t* open_tokens, long tokens,       \
                                        long rows, long heads, long kv_heads, long width, float scale, T* read) {                      \
        attend_pages(queries, heads * width, Units<T>{pages, page_tokens, unit}, places, reads, most, open, open_tokens, tokens,       \
                     rows, heads, kv_heads, width, scale, read);                                                                       \
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
    }                                                                                                                                  \
    extern "C" void best_##NAME(const T* logits, long rows, long vocabulary, int64_t* tokens) {                                        \
        _Pragma("omp parallel for if (rows > 1)")                                                                                      \
        for (long row = 0; row < rows; row++) tokens[row] = best_of(logits + row * vocabulary, vocabulary).second;                     \
    }                                                                                                                                  \
    extern "C" void weighted_sums_##NAME(const T* logits, long rows, long vocabulary, const int64_t* group_of, const float* weights,   \
                                         long groups, float* to) {                                                                     \
        weighted_sums(logits, rows, vocabulary, group_of, weights, groups, to);                                                        \
    }

FOR_TYPE(float, float32)
FOR_TYPE(Half, bfloat16)

extern "C" void product_bfloat16(const Half* x, long rows, long width, const Half* weights, long outputs, const Half* bias, int then,
                                 const Half* other, Half* to) {
    product(x, rows, width, weights, outputs, bias, then, other, to);
}
extern "C" void product_float32(const float* x, long rows, long width, const float* weights, long outputs, const float* bias, int then,
                                const float* other, float* to) {
    product_by_panels(x, rows, width, weights, outputs, bias, then, other, to);
}
extern "C" void panels_float32(const float* weight, long outputs, long width, float* to) { panels(weight, outputs, width, to); }
extern "C" void layers_bfloat16(Half* x, long rows, const Layer* each, const Behind* behind, long number, long hidden, long gate, long heads,
                                long kv_heads, long width, long own_capacity, long prompt_capacity, const int64_t* slots,
                                const int64_t* drawn, const int64_t* seen, const int64_t* items, long num_items, const Half* cosines,
                                const Half* sines, float epsilon, float scale) {
    const Sizes sizes{hidden, gate, heads, kv_heads, width};
    layers(x, rows, each, number, sizes, cosines, sines, epsilon, [=](long i, const Half* states, long stride, Half* read) {
        const Half *keys = states + heads * width, *values = keys + kv_heads * width;
        attend(states, stride, width, keys, values, stride, width, Stretch<Half>{behind[i].own_keys, behind[i].own_values, own_capacity}, slots, drawn,
               Stretch<Half>{behind[i].prompt_keys, behind[i].prompt_values, prompt_capacity}, seen, items, num_items, heads, kv_heads, width, scale, read);
    });
}
extern "C" void layers_over_slots_bfloat16(Half* x, long rows, const Layer* each, const Slots<Half>* slots, long number, long hidden, long gate,
                                           long heads, long kv_heads, long width, const int64_t* seen, const Half* cosines,
                                           const Half* sines, float epsilon, float scale, long sums, Half* queries) {
    const Sizes sizes{hidden, gate, heads, kv_heads, width};
    layers(x, rows, each, number, sizes, cosines, sines, epsilon, [=](long i, const Half* states, long stride, Half* read) {
        const Half *keys = states + heads * width, *values = keys + kv_heads * width;
        put_slots(slots[i], keys, values, stride, seen, rows, kv_heads, width);
        attend_slots(states, stride, width, slots[i], rows, heads, kv_heads, width, scale, sums, read);
        for (long row = 0; queries && row < rows; row++)
            std::copy_n(states + row * stride, heads * width, queries + (i * rows + row) * heads * width);
    });
}
extern "C" void layers_over_pages_bfloat16(Half* x, long rows, const Layer* each, const Pages<Half>* pages, long number, long hidden, long gate,
                                           long heads, long kv_heads, long width, const Half* cosines, const Half* sines, float epsilon,
                                           float scale) {
    const Sizes sizes{hidden, gate, heads, kv_heads, width};
    layers(x, rows, each, number, sizes, cosines, sines, epsilon, [=](long i, const Half* states, long stride, Half* read) {
        const Half *keys = states + heads * width, *values = keys + kv_heads * width;
        read_pages(states, keys, values, stride, pages[i], rows, heads, kv_heads, width, scale, read);
    });
}
extern "C" int numbers_of_vector() { return W; }
extern "C" int has_tiles() { return tiles_fit(static_cast<Half*>(nullptr), 32); }
