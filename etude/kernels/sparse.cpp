// Attention of a prompt's queries over chosen blocks of keys, block by block: scores, weights and what is read of a block stay in a core's
// cache, and are joined by the highest score so far. `sparse.py` hands tensors over, and says what goes in and out.

#include "products.h"

namespace {

// c (+)= a b, for up to ROWS rows
void product(long rows, const float* a, long a_row, const float* b, long b_row, long depth, float* c, long c_row, bool is_more, long vectors) {
    for (long v = 0; v < vectors; v += COLUMNS)
        sums(rows, std::min(long(COLUMNS), vectors - v), a, a_row, b + v * W, b_row, depth, c + v * W, c_row, is_more, false);
}

struct Sizes {
    long before, queries, tokens, block, width;  // tokens: those before and the queries' own
};

// Some queries of a block over the keys of one that was chosen; `top`, `sum` and `found` are theirs over the blocks so far.
void over_block(const float* asked, long rows, long first, const float* keys, const float* values, long number, const Sizes& is, bool is_first,
                float* weights, float* top, float* sum, float* found) {
    const long start = number * is.block, seen = std::min(is.block, is.tokens - start);
    product(rows, asked, is.width, keys, is.block, is.width, weights, is.block, false, is.block / W);
    for (long n = 0; n < rows; n++) {
        float* mine = weights + n * is.block;
        const long own = first + n + 1 - start;  // keys that this query may read
        Vec highest = Vec{} + LEAST;
        for (long t = 0; t < is.block; t += W) {
            Vec some = load(mine + t);
            if (t + W > own) some = LANES < int32_t(std::max(own - t, 0L)) ? some : Vec{} + LEAST, save(some, mine + t);
            highest = max_of(highest, some);
        }
        const float now = std::max(top[n], top_of(highest));
        if (now > top[n] && !is_first) {
            const float less = std::exp(top[n] - now);
            sum[n] *= less;
            for (long d = 0; d < is.width; d += W) save(load(found + n * is.width + d) * less, found + n * is.width + d);
        }
        top[n] = now;
        sum[n] += weights_of(mine, is.block / W, now, 1.0f, mine);
    }
    product(rows, weights, is.block, values + start * is.width, is.width, seen, found, is.width, !is_first, is.width / W);
}

void block_sparse(const float* queries, long query_head, long query_row, long heads, const float* keys, const float* values, const int64_t* chosen,
                  const int64_t* starts, Sizes is, float scale, float* read) {
    const long first_row = is.before / is.block, rows = (is.tokens + is.block - 1) / is.block - first_row;
#pragma omp parallel
    {
        std::vector<float> room(is.block * is.width * 2 + ROWS * is.block + is.block * 2);
        float *asked = room.data(), *found = asked + is.block * is.width, *weights = found + is.block * is.width, *top = weights + ROWS * is.block,
              *sum = top + is.block;
#pragma omp for schedule(dynamic)
        for (long item = rows * heads - 1; item >= 0; item--) {  // the longest first
            const long row = item / heads, head = item % heads, list = head * rows + row;
            const long start = std::max((first_row + row) * is.block, is.before), count = std::min((first_row + row + 1) * is.block, is.tokens) - start;
            for (long n = 0; n < count; n++)
                for (long d = 0; d < is.width; d += W)
                    save(load(queries + head * query_head + (start - is.before + n) * query_row + d) * scale, asked + n * is.width + d);
            std::fill_n(top, count, LEAST);
            std::fill_n(sum, count, 0.0f);
            for (long at = starts[list]; at < starts[list + 1]; at++)
                for (long n = 0; n < count; n += ROWS)
                    over_block(asked + n * is.width, std::min(long(ROWS), count - n), start + n, keys + chosen[at] * is.width * is.block, values, chosen[at], is,
                               at == starts[list], weights, top + n, sum + n, found + n * is.width);
            for (long n = 0; n < count; n++)
                for (long d = 0; d < is.width; d += W)
                    save(load(found + n * is.width + d) / sum[n], read + (head * is.queries + start - is.before + n) * is.width + d);
        }
    }
}

}  // namespace

extern "C" void block_sparse_float32(const float* queries, long query_head, long query_row, long heads, const float* keys, const float* values,
                                     const int64_t* chosen, const int64_t* starts, long before, long number, long block, long width, float scale,
                                     float* read) {
    block_sparse(queries, query_head, query_row, heads, keys, values, chosen, starts, Sizes{before, number, before + number, block, width}, scale,
                 read);
}
