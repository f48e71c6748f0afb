// Attention of one token a row over pages that are chosen for it, and over its open one.

#pragma once

#include "slots.h"

namespace {

constexpr long DIGESTS_AHEAD = 32;  // of pages that are asked for from memory before they are read

template <class T> struct Pages {  // of a layer
    const T *pages, *digests;      // [.., 2, tokens, D]; of those of a row and head [rows, K, room, X]
    T* open;                       // [rows, K, 2, tokens, D]
    const int64_t* places;         // [rows, K, room], of those of a row and head
    int64_t* times;                // [rows, K, room + 1], how often each was read
    const int64_t *full, *in_open, *reads;  // of a row: full pages, tokens in the open one, how many full ones it reads
    int64_t room, tokens, numbers, most;    // numbers: X; most: that a row reads
};

// Which pages promise most, [rows, K, most], by place and in order of these, of the `full` first of a row `reads`; page 0 is one of them. For
// each query the softmax of its products with what is known of pages, [rows, K, room, X], and over the queries of a head the largest of it.
// `halves`: the queries [rows, H, X] as they meet that, times the scale. Behind those of a row come as many places as it lacks, each 0.
template <class T>
void best_pages(const float* halves, const T* known, long room, const int64_t* full, const int64_t* reads, long rows, long heads, long kv_heads, long numbers,
                long most, int64_t* chosen) {
    const long share = heads / kv_heads;
#pragma omp parallel
    {
        std::vector<float> scores, worth;
        std::vector<int64_t> order;
#pragma omp for schedule(dynamic)
        for (long pair = 0; pair < rows * kv_heads; pair++) {
            const long row = pair / kv_heads, head = pair % kv_heads, pages = full[row], count = reads[row];
            const long blocks = (pages + W - 1) / W, wide_room = blocks * W;
            int64_t* mine = chosen + pair * most;
            std::fill_n(mine, most, 0);
            order.resize(pages);
            for (long page = 0; page < pages; page++) order[page] = page;
            if (count < pages) {
                scores.resize(share * wide_room);
                worth.assign(wide_room, 0);
                const InOrder<T> keys{known + pair * room * numbers, nullptr, numbers};
                some_at_a_time(share, [&](auto some, long n) {
                    const auto ask = [&](long t) { expect(keys.key(std::min(t + DIGESTS_AHEAD, pages - 1)), numbers); };
                    scores_of_keys<some()>(halves + (row * heads + head * share + n) * numbers, keys, pages, numbers, &scores[n * wide_room], wide_room, ask);
                });
                for (long n = 0; n < share; n++) {
                    float* own = &scores[n * wide_room];
                    const float sum = weights_of(own, blocks, top_of(own, pages, blocks), 1, own);
                    for (long t = 0; t < wide_room; t += W) save(max_of(load(own + t) / sum, load(&worth[t])), &worth[t]);  // what is no number is worth nothing
                }
                worth[0] = -LEAST;
                std::nth_element(order.begin(), order.begin() + count, order.end(),
                                 [&](long a, long b) { return worth[a] != worth[b] ? worth[a] > worth[b] : a < b; });
                std::sort(order.begin(), order.begin() + count);
            }
            std::copy_n(order.begin(), std::min(count, pages), mine);
        }
    }
}

// Over the chosen pages of each row and head, [2, tokens, D] at the places that are named, so many of each row, and over its open page.
template <class T>
void attend_pages(const T* queries, long query_row, const T* pages, const int64_t* places, const int64_t* reads, long most, const T* open,
                  const int64_t* open_tokens, long tokens, long rows, long heads, long kv_heads, long width, float scale, T* read) {
    const long size = 2 * tokens * width, longest = (most + 1) * tokens;
    std::vector<const T*> at(rows * kv_heads * longest);
    std::vector<int64_t> counts(rows * kv_heads);
#pragma omp parallel for
    for (long pair = 0; pair < rows * kv_heads; pair++) {
        const T** mine = &at[pair * longest];
        const auto list = [&](const T* page, long count) {
            for (long t = 0; t < count; t++) *mine++ = page + t * width;
        };
        for (long i = 0; i < reads[pair / kv_heads]; i++) list(pages + places[pair * most + i] * size, tokens);
        list(open + pair * size, open_tokens[pair / kv_heads]);
        counts[pair] = mine - &at[pair * longest];
    }
    const auto keys_of = [&](long pair) { return Listed<T>{&at[pair * longest], tokens * width}; };
    const auto no_masses = [](long) { return static_cast<float*>(nullptr); };
    attend_over(queries, query_row, width, counts.data(), rows, heads, kv_heads, width, scale, read, keys_of, no_masses);
}

// The new token of each row becomes the last of its open page; pages are chosen for its queries, which read them. Queries, keys and values of
// the next row are `stride` numbers further.
template <class T>
void read_pages(const T* queries, const T* keys, const T* values, long stride, Pages<T> own, long rows, long heads, long kv_heads, long width, float scale,
                T* read) {
    const long pairs = rows * kv_heads, size = own.tokens * width;
    std::vector<float> halves(rows * heads * own.numbers);
    std::vector<int64_t> chosen(pairs * own.most);
    for (long pair = 0; pair < pairs; pair++) {
        const long row = pair / kv_heads, from = row * stride + pair % kv_heads * width;
        T* to = own.open + pair * 2 * size + (own.in_open[row] - 1) * width;
        std::copy_n(keys + from, width, to);
        std::copy_n(values + from, width, to + size);
    }
    for (long n = 0; n < rows * heads; n++) {
        const T* query = queries + n / heads * stride + n % heads * width;
        float* to = &halves[n * own.numbers];
        for (long d = 0; d < width; d++) {
            const float x = wide(query[d]) * scale;
            if (own.numbers == width)
                to[d] = x;
            else
                to[d] = std::max(x, 0.0f), to[width + d] = std::min(x, 0.0f);
        }
    }
    best_pages(halves.data(), own.digests, own.room, own.full, own.reads, rows, heads, kv_heads, own.numbers, own.most, chosen.data());
    for (long pair = 0; pair < pairs; pair++) {
        int64_t *mine = chosen.data() + pair * own.most, *times = own.times + pair * (own.room + 1);
        for (long i = 0; i < own.reads[pair / kv_heads]; i++) {
            times[mine[i]]++;
            mine[i] = own.places[pair * own.room + mine[i]];
        }
        times[own.full[pair / kv_heads]]++;
    }
    attend_pages(queries, stride, own.pages, chosen.data(), own.reads, own.most, own.open, own.in_open, own.tokens, rows, heads, kv_heads, width, scale, read);
}

}  // namespace
