// An update on a CPU but for its matrix products, forward and backward: norms, gates, rotary positions, attention within trees of tokens, and
// the log-probs of chosen tokens. `update.py` hands tensors over, and says what goes in and out. Sums over rows that several threads have a
// part of are added in the threads' order, so that the same update gives the same numbers.

#include <omp.h>

#include "blocks.h"

namespace {

// ---------------------------------------------------------------------- norms

template <class T>
void norm(const float* x, long rows, long width, const float* weight, float epsilon, T* to, float* inverses) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const float* from = x + row * width;
        const float inverse = inverses[row] = inverse_norm(from, width, epsilon);
        for (long d = 0; d < width; d += W) save(load(from + d) * inverse * load(weight + d), to + row * width + d);
    }
}

// y = w x̂, x̂ = x / norm:  dx = (w dy - x̂ mean(w dy x̂)) / norm + residual,  dw = Σ dy x̂
template <class T>
void norm_backward(const T* slope, const float* x, const float* inverses, const float* weight, const float* residual, long rows, long width,
                   float* to, float* weight_slope) {
    std::vector<float> sums(omp_get_max_threads() * width);
#pragma omp parallel
    {
        float* mine = sums.data() + omp_get_thread_num() * width;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            const T* dy = slope + row * width;
            const float *from = x + row * width, inverse = inverses[row];
            Vec dot = {};
            for (long d = 0; d < width; d += W) dot += load(dy + d) * load(weight + d) * load(from + d);
            const float mean = sum_of(dot) * inverse * inverse * inverse / width;
            for (long d = 0; d < width; d += W) {
                const Vec some = load(dy + d) * inverse, its = load(from + d);
                Vec found = some * load(weight + d) - its * mean;
                if (residual) found += load(residual + row * width + d);
                save(found, to + row * width + d);
                save(load(mine + d) + some * its, mine + d);
            }
        }
    }
    std::fill_n(weight_slope, width, 0.0f);
    for (size_t i = 0; i < sums.size(); i++) weight_slope[i % width] += sums[i];
}

// ---------------------------------------------------------------------- gates

// to = SiLU(gate) up, of rows [gate, up]
template <class T> void gated(const T* both, long rows, long width, T* to) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const T *gate = both + row * 2 * width, *up = gate + width;
        for (long d = 0; d < width; d += W) {
            const Vec g = load(gate + d);
            save(g * sigmoid_of(g) * load(up + d), to + row * width + d);
        }
    }
}

// The same once more, and the slopes [dgate, dup] that follow from that of its result.
template <class T> void gated_backward(const T* both, const T* slope, long rows, long width, T* to, T* both_slope) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const T *gate = both + row * 2 * width, *up = gate + width;
        T *dgate = both_slope + row * 2 * width, *dup = dgate + width;
        for (long d = 0; d < width; d += W) {
            const Vec g = load(gate + d), u = load(up + d), dy = load(slope + row * width + d), s = sigmoid_of(g), silu = g * s;
            save(silu * u, to + row * width + d);
            save(dy * u * s * (1.0f + g * (1.0f - s)), dgate + d);
            save(dy * silu, dup + d);
        }
    }
}

// ---------------------------------------------------------------------- positions

// x cos + (-x₂, x₁) sin for the first `heads` heads of every row, in place; with `sign` -1 it is turned back, which is also how slopes go.
template <class T>
void rotate(T* states, long rows, long row_stride, long heads, long width, const float* cosines, const float* sines, float sign) {
    const long half = width / 2;
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++)
        for (long head = 0; head < heads; head++) {
            T* x = states + row * row_stride + head * width;
            const float *c = cosines + row * width, *s = sines + row * width;
            long d = 0;
            for (; d + W <= half; d += W) {
                const Vec one = load(x + d), two = load(x + d + half), turn = load(s + d) * sign;
                save(one * load(c + d) - two * turn, x + d);
                save(two * load(c + d) + one * turn, x + d + half);
            }
            for (; d < half; d++) {
                const float one = wide(x[d]), two = wide(x[d + half]), turn = s[d] * sign;
                narrow(one * c[d] - two * turn, x + d);
                narrow(two * c[d] + one * turn, x + d + half);
            }
        }
}

// ---------------------------------------------------------------------- attention

constexpr long BLOCK = 2 * W;  // tokens that are looked at together: as queries, and as keys

// Who sees whom in a row of tokens: a key is seen from its own place on, up to where its branch ends.
class Tree {
   public:
    struct Run {
        long first, blocks, column;  // of keys' blocks, and where their scores stand
    };
    std::vector<Run> runs;
    long room;  // scores of a query

    Tree(const int64_t* ends, long start, long length) : ends_((length + BLOCK - 1) / BLOCK * BLOCK), blocks_(ends_.size() / BLOCK) {
        for (long t = 0; t < length; t++) ends_[t] = int32_t(ends[start + t] - start);
        for (size_t block = 0; block < blocks_.size(); block++) {
            const auto first = ends_.begin() + block * BLOCK, end = ends_.begin() + std::min(length, long(block + 1) * BLOCK);
            blocks_[block] = {*std::min_element(first, end), *std::max_element(first, end)};
        }
    }

    // Gather the blocks of keys that some query of a block sees.
    void look(long block) {
        runs.clear();
        room = 0;
        for (long key = 0; key <= block; key++) {
            if (blocks_[key].last <= block * BLOCK) continue;
            if (runs.empty() || runs.back().first + runs.back().blocks < key) runs.push_back({key, 0, room});
            runs.back().blocks++;
            room += BLOCK;
        }
    }

    // Whether the queries of one block see all keys of another.
    bool sees_all(long block, long key) const { return key < block && blocks_[key].first >= (block + 1) * BLOCK; }

    // Which of a vector of keys a query sees.
    Ints seen(long query, long key) const {
        const int32_t place = int32_t(query);
        return (LANES + int32_t(key) <= place) & (*reinterpret_cast<const LooseInts*>(ends_.data() + key) > place);
    }

   private:
    struct Ends {
        int32_t first, last;
    };
    std::vector<int32_t> ends_;
    std::vector<Ends> blocks_;
};

// What a thread works on: a row of tokens, for the heads that share one head of keys and values.
struct Item {
    long head, start, length, capacity, most;  // `capacity`: places in whole blocks; `most`: queries of a block
    Item(long number, const int64_t* starts, long kv_heads, long share)
        : head(number % kv_heads), start(starts[number / kv_heads]), length(starts[number / kv_heads + 1] - start),
          capacity((length + BLOCK - 1) / BLOCK * BLOCK), most(BLOCK * share) {}
};

// What lies `token_stride` apart for each of some tokens, a row for each of the heads that share keys.
template <class T> void gather(const T* from, long tokens, long token_stride, long share, long width, T* to) {
    for (long n = 0; n < tokens * share; n++) std::copy_n(from + n / share * token_stride + n % share * width, width, to + n * width);
}

// [rows, width] → [width, depth], with zeros behind the rows.
template <class T> void transposed(const T* from, long rows, long width, long depth, T* to) {
    for (long d = 0; d < width; d++) {
        for (long n = 0; n < rows; n++) to[d * depth + n] = from[n * width + d];
        std::fill(to + d * depth + rows, to + (d + 1) * depth, T{});
    }
}

// Softmax attention of every token over those that it sees, itself among them, and log Σ exp of its scores, for the backward pass.
template <class T>
void attend(const T* states, const int64_t* starts, long rows, const int64_t* ends, long heads, long kv_heads, long width, float scale,
            T* read, float* normalisers) {
    const long share = heads / kv_heads, stride = (heads + 2 * kv_heads) * width;
#pragma omp parallel for schedule(dynamic)
    for (long item = 0; item < rows * kv_heads; item++) {
        const auto [head, start, length, capacity, most] = Item(item, starts, kv_heads, share);
        Tree tree(ends, start, length);
        std::vector<T> keys(capacity * width), values(capacity * width), asked(most * width), weights(most * capacity);
        std::vector<float> scores(most * capacity), found(most * width);
        for (long t = 0; t < length; t++) {
            const T* token = states + (start + t) * stride;
            put_key(keys.data(), width, t, token + (heads + head) * width);
            put_value(values.data(), width, t, token + (heads + kv_heads + head) * width);
        }
        for (long from = 0; from < length; from += BLOCK) {
            const long tokens = std::min(BLOCK, length - from), count = tokens * share;
            gather(states + (start + from) * stride + head * share * width, tokens, stride, share, width, asked.data());
            tree.look(from / BLOCK);
            const long room = tree.room;
            for (const auto& run : tree.runs)
                scores_over(asked.data(), count, keys.data() + run.first * BLOCK * width, width, 2 * run.blocks, scores.data() + run.column, room);
            std::fill_n(found.data(), count * width, 0.0f);
            std::vector<float> sums(count);
            for (long n = 0; n < count; n++) {
                float* mine = scores.data() + n * room;
                Vec top = Vec{} + LEAST;
                for (const auto& run : tree.runs)
                    for (long t = 0; t < run.blocks * BLOCK; t += W) {
                        LooseVec& some = *reinterpret_cast<LooseVec*>(mine + run.column + t);
                        const long key = run.first * BLOCK + t;
                        if (!tree.sees_all(from / BLOCK, key / BLOCK)) some = tree.seen(from + n / share, key) ? some : Vec{} + LEAST;
                        top = max_of(top, some);
                    }
                const float highest = top_of(top);
                sums[n] = weights_of(mine, room / W, highest, scale, weights.data() + n * room);
                normalisers[(start + from + n / share) * heads + head * share + n % share] = highest * scale + std::log(sums[n]);
            }
            for (const auto& run : tree.runs)
                read_from(weights.data() + run.column, count, room, values.data() + run.first * BLOCK * width, width, width, 2 * run.blocks,
                          found.data(), width);
            for (long n = 0; n < count; n++) {
                T* to = read + ((start + from + n / share) * heads + head * share + n % share) * width;
                const float inverse = 1 / sums[n];
                for (long d = 0; d < width; d += W) save(load(found.data() + n * width + d) * inverse, to + d);
            }
        }
    }
}

// Slopes of queries, keys and values. With weights P = exp(scale S - normaliser), dP = dO Vᵀ and dS = P (dP - dO · O) scale:  dQ = dS K,
// dK = dSᵀ Q,  dV = Pᵀ dO  (Dao et al. 2022, FlashAttention, arXiv 2205.14135, appendix B.2, where blocks that nobody sees are left out).
template <class T>
void attend_backward(const T* states, const int64_t* starts, long rows, const int64_t* ends, long heads, long kv_heads, long width,
                     float scale, const T* read, const float* normalisers, const T* slope, T* states_slope) {
    const long share = heads / kv_heads, stride = (heads + 2 * kv_heads) * width;
#pragma omp parallel for schedule(dynamic)
    for (long item = 0; item < rows * kv_heads; item++) {
        const auto [head, start, length, capacity, most] = Item(item, starts, kv_heads, share);
        Tree tree(ends, start, length);
        std::vector<T> keys(capacity * width), keys_to_read(capacity * width), values(capacity * width);
        std::vector<T> asked(most * width), slopes(most * width), asked_across(most * width), slopes_across(most * width);
        std::vector<T> score_slopes(most * capacity), score_slope_pairs(most * capacity), weight_pairs(most * capacity);
        std::vector<float> scores(most * capacity), weight_slopes(most * capacity), found(most * width);
        std::vector<float> key_slopes(width * capacity), value_slopes(width * capacity);
        for (long t = 0; t < length; t++) {
            const T* token = states + (start + t) * stride;
            put_key(keys.data(), width, t, token + (heads + head) * width);
            put_value(keys_to_read.data(), width, t, token + (heads + head) * width);
            put_key(values.data(), width, t, token + (heads + kv_heads + head) * width);
        }
        for (long from = 0; from < length; from += BLOCK) {
            const long tokens = std::min(BLOCK, length - from), count = tokens * share, depth = (count + BLOCK - 1) / BLOCK * BLOCK;
            const long first = ((start + from) * heads + head * share) * width;
            gather(states + (start + from) * stride + head * share * width, tokens, stride, share, width, asked.data());
            gather(slope + first, tokens, heads * width, share, width, slopes.data());
            transposed(asked.data(), count, width, depth, asked_across.data());
            transposed(slopes.data(), count, width, depth, slopes_across.data());
            tree.look(from / BLOCK);
            const long room = tree.room;
            for (const auto& run : tree.runs) {
                const long at = run.first * BLOCK * width;
                scores_over(asked.data(), count, keys.data() + at, width, 2 * run.blocks, scores.data() + run.column, room);
                scores_over(slopes.data(), count, values.data() + at, width, 2 * run.blocks, weight_slopes.data() + run.column, room);
            }
            for (long n = 0; n < depth; n += 2) {
                float normaliser[2] = {}, dot[2] = {};
                for (long i = 0; i < 2 && n + i < count; i++) {
                    const long place = (start + from + (n + i) / share) * heads + head * share + (n + i) % share;
                    Vec sum = {};
                    for (long d = 0; d < width; d += W) sum += load(read + place * width + d) * load(slope + place * width + d);
                    normaliser[i] = normalisers[place];
                    dot[i] = sum_of(sum);
                }
                for (const auto& run : tree.runs)
                    for (long t = 0; t < run.blocks * BLOCK; t += W) {
                        const long key = run.first * BLOCK + t, column = run.column + t;
                        const bool sees_all = tree.sees_all(from / BLOCK, key / BLOCK);
                        Vec weight[2] = {}, dscore[2] = {};
                        for (long i = 0; i < 2 && n + i < count; i++) {
                            weight[i] = exp_of(load(scores.data() + (n + i) * room + column) * scale - normaliser[i]);
                            if (!sees_all) weight[i] = tree.seen(from + (n + i) / share, key) ? weight[i] : Vec{};
                            dscore[i] = weight[i] * (load(weight_slopes.data() + (n + i) * room + column) - dot[i]) * scale;
                            save(dscore[i], score_slopes.data() + (n + i) * room + column);
                        }
                        save_pair(weight[0], weight[1], weight_pairs.data() + n * room + 2 * column);
                        save_pair(dscore[0], dscore[1], score_slope_pairs.data() + n * room + 2 * column);
                    }
            }
            std::fill_n(found.data(), count * width, 0.0f);
            for (const auto& run : tree.runs) {
                const long keys_end = run.blocks * BLOCK, at = run.first * BLOCK;
                read_from(score_slopes.data() + run.column, count, room, keys_to_read.data() + at * width, width, width, 2 * run.blocks,
                          found.data(), width);
                read_from(asked_across.data(), width, depth, score_slope_pairs.data() + 2 * run.column, room, keys_end, depth / W,
                          key_slopes.data() + at, capacity);
                read_from(slopes_across.data(), width, depth, weight_pairs.data() + 2 * run.column, room, keys_end, depth / W,
                          value_slopes.data() + at, capacity);
            }
            for (long n = 0; n < count; n++) {
                T* to = states_slope + (start + from + n / share) * stride + (head * share + n % share) * width;
                for (long d = 0; d < width; d += W) save(load(found.data() + n * width + d), to + d);
            }
        }
        for (long t = 0; t < length; t++) {
            T *key = states_slope + (start + t) * stride + (heads + head) * width, *value = key + kv_heads * width;
            for (long d = 0; d < width; d++) {
                narrow(key_slopes[d * capacity + t], key + d);
                narrow(value_slopes[d * capacity + t], value + d);
            }
        }
    }
}

// ---------------------------------------------------------------------- chosen tokens
// Each row has its own temperature, of which the inverse is given.

constexpr long STRETCH = 256 * W;  // logits whose sums are taken in float32

template <class T>
void chosen(const T* logits, long rows, long vocabulary, const float* inverses, const int64_t* targets, float* logprobs,
            float* entropies, float* normalisers) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        const T* mine = logits + row * vocabulary;
        const float inverse_temperature = inverses[row];
        const long even = vocabulary / W * W;
        Vec most = Vec{} + LEAST;
        for (long v = 0; v < even; v += W) most = max_of(most, load(mine + v));
        float top = top_of(most);
        for (long v = even; v < vocabulary; v++) top = std::max(top, wide(mine[v]));
        top *= inverse_temperature;
        double sum = 0, dot = 0;
        for (long from = 0; from < even; from += STRETCH) {
            Vec some = {}, product = {};
            for (long v = from; v < std::min(even, from + STRETCH); v += W) {
                const Vec below = load(mine + v) * inverse_temperature - top, weight = exp_of(below);
                some += weight;
                product += weight * max_of(below, Vec{} - 88.0f);  // no infinity times nothing
            }
            sum += sum_of(some);
            dot += sum_of(product);
        }
        for (long v = even; v < vocabulary; v++) {
            const float below = wide(mine[v]) * inverse_temperature - top, weight = std::exp(below);
            sum += weight;
            dot += weight * std::max(below, -88.0f);
        }
        normalisers[row] = top + float(std::log(sum));
        logprobs[row] = wide(mine[targets[row]]) * inverse_temperature - normalisers[row];
        entropies[row] = float(std::log(sum) - dot / sum);
    }
}

// Logits become their slopes: those of the log-prob of the target, times its own.
template <class T>
void chosen_backward(T* logits, long rows, long vocabulary, const float* inverses, const int64_t* targets, const float* normalisers,
                     const float* slopes) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        T *mine = logits + row * vocabulary, *target = mine + targets[row];
        const float inverse_temperature = inverses[row], normaliser = normalisers[row], slope = slopes[row] * inverse_temperature;
        const float its = slope * (1 - std::exp(wide(*target) * inverse_temperature - normaliser));
        const long even = vocabulary / W * W;
        for (long v = 0; v < even; v += W) save(exp_of(load(mine + v) * inverse_temperature - normaliser) * -slope, mine + v);
        for (long v = even; v < vocabulary; v++) narrow(std::exp(wide(mine[v]) * inverse_temperature - normaliser) * -slope, mine + v);
        narrow(its, target);
    }
}

// The same, with the entropy's slopes: dH / dlogit = -p (log p + H).
template <class T>
void chosen_backward_with_entropy(T* logits, long rows, long vocabulary, const float* inverses, const int64_t* targets,
                                  const float* normalisers, const float* slopes, const float* entropies, const float* entropy_slopes) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++) {
        T *mine = logits + row * vocabulary, *target = mine + targets[row];
        const float inverse_temperature = inverses[row], normaliser = normalisers[row], slope = slopes[row] * inverse_temperature;
        const float spread = entropy_slopes[row] * inverse_temperature, entropy = entropies[row];
        const auto found = [&](float logit) {
            const float logprob = std::max(logit * inverse_temperature - normaliser, -88.0f);
            return std::exp(logprob) * (-slope - spread * (logprob + entropy));
        };
        const float its = slope + found(wide(*target));
        const long even = vocabulary / W * W;
        for (long v = 0; v < even; v += W) {
            const Vec logprob = max_of(load(mine + v) * inverse_temperature - normaliser, Vec{} - 88.0f);  // no infinity times nothing
            save(exp_of(logprob) * (-slope - spread * (logprob + entropy)), mine + v);
        }
        for (long v = even; v < vocabulary; v++) narrow(found(wide(mine[v])), mine + v);
        narrow(its, target);
    }
}

}  // namespace

#define FOR_TYPE(T, NAME)                                                                                                                  \
    extern "C" void norm_##NAME(const float* x, long rows, long width, const float* weight, float epsilon, T* to, float* inverses) {      \
        norm(x, rows, width, weight, epsilon, to, inverses);                                                                               \
    }                                                                                                                                      \
    extern "C" void norm_backward_##NAME(const T* slope, const float* x, const float* inverses, const float* weight,                      \
                                         const float* residual, long rows, long width, float* to, float* weight_slope) {                  \
        norm_backward(slope, x, inverses, weight, residual, rows, width, to, weight_slope);                                                \
    }                                                                                                                                      \
    extern "C" void gated_##NAME(const T* both, long rows, long width, T* to) { gated(both, rows, width, to); }                          \
    extern "C" void gated_backward_##NAME(const T* both, const T* slope, long rows, long width, T* to, T* both_slope) {                  \
        gated_backward(both, slope, rows, width, to, both_slope);                                                                          \
    }                                                                                                                                      \
    extern "C" void rotate_##NAME(T* states, long rows, long row_stride, long heads, long width, const float* cosines,                    \
                                  const float* sines, float sign) {                                                                       \
        rotate(states, rows, row_stride, heads, width, cosines, sines, sign);                                                              \
    }                                                                                                                                      \
    extern "C" void attend_##NAME(const T* states, const int64_t* starts, long rows, const int64_t* ends, long heads, long kv_heads,      \
                                  long width, float scale, T* read, float* normalisers) {                                                 \
        attend(states, starts, rows, ends, heads, kv_heads, width, scale, read, normalisers);                                              \
    }                                                                                                                                      \
    extern "C" void attend_backward_##NAME(const T* states, const int64_t* starts, long rows, const int64_t* ends, long heads,            \
                                           long kv_heads, long width, float scale, const T* read, const float* normalisers,               \
                                           const T* slope, T* states_slope) {                                                             \
        attend_backward(states, starts, rows, ends, heads, kv_heads, width, scale, read, normalisers, slope, states_slope);                \
    }                                                                                                                                      \
    extern "C" void chosen_##NAME(const T* logits, long rows, long vocabulary, const float* inverses, const int64_t* targets,             \
                                  float* logprobs, float* entropies, float* normalisers) {                                                \
        chosen(logits, rows, vocabulary, inverses, targets, logprobs, entropies, normalisers);                                             \
    }                                                                                                                                      \
    extern "C" void chosen_backward_##NAME(T* logits, long rows, long vocabulary, const float* inverses, const int64_t* targets,          \
                                           const float* normalisers, const float* slopes) {                                               \
        chosen_backward(logits, rows, vocabulary, inverses, targets, normalisers, slopes);                                                 \
    }                                                                                                                                      \
    extern "C" void chosen_backward_with_entropy_##NAME(T* logits, long rows, long vocabulary, const float* inverses,                     \
                                                        const int64_t* targets, const float* normalisers, const float* slopes,            \
                                                        const float* entropies, const float* entropy_slopes) {                            \
        chosen_backward_with_entropy(logits, rows, vocabulary, inverses, targets, normalisers, slopes, entropies,                          \
                                     entropy_slopes);                                                                                      \
    }

FOR_TYPE(float, float32)
FOR_TYPE(Half, bfloat16)
