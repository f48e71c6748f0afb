// Attention of one token a row over what is chosen for it of its pages, whole ones or single tokens, and over its open page.

#pragma once

#include "slots.h"

namespace {

constexpr long DIGESTS_AHEAD = 32;  // of pages that are asked for from memory before they are read

template <class T> struct Pages {  // of a layer
    const T* pages;                // [.., 2, tokens, D]
    const void* known;             // of those of a row and head [rows, K, room, X]: digests, or words of a sketch
    T* open;                       // [rows, K, 2, tokens, D]
    const int64_t* places;         // [rows, K, room], of those of a row and head
    int64_t* times;                // [rows, K, room + 1], how many units of each were read
    const int64_t *full, *in_open, *reads;  // of a row: full pages, tokens in the open one, how many units it reads of full ones
    int64_t room, tokens, numbers, most;    // numbers: X; most: that a row reads
    int64_t unit;                  // tokens that are read together: those of a page, or one
    const T* directions;           // of sketches [rows, K, D, X], otherwise null
};

// Digests of pages: numbers that a query is multiplied with.
template <class T> struct Digests {
    static constexpr long UNITS = 1;  // of a page
    const T* known;
    long numbers;
    template <int N> void scores(const float* asked, long pages, float* to, long room) const {
        const auto ask = [&](long t) { expect(known + std::min(t + DIGESTS_AHEAD, pages - 1) * numbers, numbers); };
        scores_of_keys<N>(asked, InOrder<T>{known, nullptr, numbers}, pages, numbers, to, room, ask);
    }
};

// Sketches of the keys of pages of 16: of each direction a word, which has two bits of every key.
struct Sketches {
    static constexpr long UNITS = 16;
    const uint32_t* known;
    long numbers;
    template <int N> void scores(const float* asked, long pages, float* to, long room) const {
        constexpr int VECTORS = UNITS / W;
        for (long page = 0; page < pages; page++) {
            const uint32_t* words = known + page * numbers;
            expect(words + std::min(DIGESTS_AHEAD, pages - 1 - page) * numbers, numbers);
            Vec sums[N][VECTORS] = {};
            for (long x = 0; x < numbers; x++)
                for (int v = 0; v < VECTORS; v++) {
                    const Ints bits = (Ints{} + int32_t(words[x])) >> (2 * (LANES + v * W)) & 3;
                    const Vec code = __builtin_convertvector(bits, Vec);
                    for (int n = 0; n < N; n++) sums[n][v] += code * asked[n * numbers + x];
                }
            for (int n = 0; n < N; n++)
                for (int v = 0; v < VECTORS; v++) save(sums[n][v], to + n * room + page * UNITS + v * W);
        }
    }
};

// How many of `number` numbers, none of which is below 0, have bits of at least so much: these are in the order of the numbers. Zeros fill the
// last vector.
inline long count_from(int32_t bits, const float* of, long number) {
    Ints found = {};
    for (long t = 0; t < number; t += W) found -= reinterpret_cast<Ints>(load(of + t)) >= bits;
    long sum = 0;
    for (int lane = 0; lane < W; lane++) sum += found[lane];
    return sum;
}

// Which are the `count` largest of them, in order; of equal ones the first.
inline void largest(const float* of, long number, long count, int64_t* places) {
    int32_t least = 0, most = 0x7f800000;  // at least `count` have `least` or more
    while (least < most) {
        const int32_t middle = least + (most - least + 1) / 2;
        const long found = count_from(middle, of, number);
        if (found >= count)
            least = middle;
        else
            most = middle - 1;
        if (found == count) break;
    }
    long equal = count - count_from(least + 1, of, number), taken = 0;
    for (long t = 0; taken < count; t++) {  // without a branch, since which are taken can't be foreseen
        int32_t bits;
        std::memcpy(&bits, of + t, 4);
        const bool is_equal = bits == least;
        places[taken] = t;
        taken += (bits > least) | (is_equal & (equal > 0));
        equal -= is_equal;
    }
}

// Which units promise most, [rows, K, most], by place and in order of these, of those of the `full` first pages of a row `reads`; unit 0 is one
// of them. For each query the softmax of its products with what is known of pages, and over the queries of a head the largest of it. `asked`:
// the queries [rows, H, X] as they meet that, times the scale. Behind those of a row come as many places as it lacks, each 0.
template <class Known, class T>
void best_units(const float* asked, const T* known, long room, const int64_t* full, const int64_t* reads, long rows, long heads, long kv_heads, long numbers,
                long most, int64_t* chosen) {
    const long share = heads / kv_heads;
#pragma omp parallel
    {
        std::vector<float> scores, worth;
#pragma omp for schedule(dynamic)
        for (long pair = 0; pair < rows * kv_heads; pair++) {
            const long row = pair / kv_heads, head = pair % kv_heads, units = full[row] * Known::UNITS, count = std::min(reads[row], units);
            const long blocks = (units + W - 1) / W, wide_room = blocks * W;
            int64_t* mine = chosen + pair * most;
            std::fill_n(mine, most, 0);
            if (count == units) {
                for (long unit = 0; unit < units; unit++) mine[unit] = unit;
                continue;
            }
            scores.resize(share * wide_room);
            worth.assign(wide_room, 0);
            const Known own{known + pair * room * numbers, numbers};
            some_at_a_time(share, [&](auto some, long n) {
                own.template scores<some()>(asked + (row * heads + head * share + n) * numbers, full[row], &scores[n * wide_room], wide_room);
            });
            for (long n = 0; n < share; n++) {
                float* mine_of = &scores[n * wide_room];
                const float part = 1 / weights_of(mine_of, blocks, top_of(mine_of, units, blocks), 1, mine_of);
                for (long t = 0; t < wide_room; t += W) save(max_of(load(mine_of + t) * part, load(&worth[t])), &worth[t]);  // what is no number is worth nothing
            }
            worth[0] = -LEAST;
            std::fill(worth.begin() + units, worth.end(), 0.0f);
            largest(worth.data(), units, count, mine);
        }
    }
}

template <class T>
void best_pages(const float* asked, const void* known, bool are_sketches, long room, const int64_t* full, const int64_t* reads, long rows, long heads,
                long kv_heads, long numbers, long most, int64_t* chosen) {
    if (are_sketches)
        best_units<Sketches>(asked, static_cast<const uint32_t*>(known), room, full, reads, rows, heads, kv_heads, numbers, most, chosen);
    else
        best_units<Digests<T>>(asked, static_cast<const T*>(known), room, full, reads, rows, heads, kv_heads, numbers, most, chosen);
}

// Where units lie: pages of so many tokens each, [.., 2, tokens, D], and how many of a page's are one.
template <class T> struct Units {
    const T* pages;
    long tokens, unit;
};

// Over the chosen units of each row and head, at the places that are named, so many of each row, and over its open page.
template <class T>
void attend_pages(const T* queries, long query_row, Units<T> units, const int64_t* places, const int64_t* reads, long most, const T* open,
                  const int64_t* open_tokens, long tokens, long rows, long heads, long kv_heads, long width, float scale, T* read) {
    const long pairs = rows * kv_heads, longest = most * units.unit + tokens, of_page = units.tokens / units.unit;
    std::vector<const T*> keys(pairs * longest), values(pairs * longest);
    std::vector<int64_t> counts(pairs);
#pragma omp parallel for
    for (long pair = 0; pair < pairs; pair++) {
        long at = pair * longest;
        const auto list = [&](const T* first, long count, long further) {
            for (long t = 0; t < count; t++, at++) keys[at] = first + t * width, values[at] = keys[at] + further * width;
        };
        for (long i = 0; i < reads[pair / kv_heads]; i++) {
            const long place = places[pair * most + i], page = place / of_page;
            list(units.pages + (page * 2 * units.tokens + place % of_page * units.unit) * width, units.unit, units.tokens);
        }
        list(open + pair * 2 * tokens * width, open_tokens[pair / kv_heads], tokens);
        counts[pair] = at - pair * longest;
    }
    const auto keys_of = [&](long pair) { return Listed<T>{&keys[pair * longest], &values[pair * longest]}; };
    const auto no_masses = [](long) { return static_cast<float*>(nullptr); };
    attend_over(queries, query_row, width, counts.data(), rows, heads, kv_heads, width, scale, read, keys_of, no_masses);
}

// How a query [D] meets digests of so many numbers: times the scale, and where they are two halves what is above 0 and what is below it.
template <class T> void meet_digests(const T* query, long width, float scale, long numbers, float* to) {
    for (long d = 0; d < width; d++) {
        const float x = wide(query[d]) * scale;
        if (numbers == width)
            to[d] = x;
        else
            to[d] = std::max(x, 0.0f), to[width + d] = std::min(x, 0.0f);
    }
}

// And sketches: times the scale, along the directions [D, X].
template <class T> void meet_sketches(const T* query, long width, float scale, const T* directions, long numbers, float* to) {
    std::fill_n(to, numbers, 0.0f);
    for (long d = 0; d < width; d++) {
        const float x = wide(query[d]) * scale;
        for (long i = 0; i < numbers; i++) to[i] += x * wide(directions[d * numbers + i]);
    }
}

// The new token of each row becomes the last of its open page; units are chosen for its queries, which read them. Queries, keys and values of
// the next row are `stride` numbers further.
template <class T>
void read_pages(const T* queries, const T* keys, const T* values, long stride, Pages<T> own, long rows, long heads, long kv_heads, long width, float scale,
                T* read) {
    const long pairs = rows * kv_heads, size = own.tokens * width, of_page = own.tokens / own.unit;
    std::vector<float> asked(rows * heads * own.numbers);
    std::vector<int64_t> chosen(pairs * own.most);
    for (long pair = 0; pair < pairs; pair++) {
        const long row = pair / kv_heads, from = row * stride + pair % kv_heads * width;
        T* to = own.open + pair * 2 * size + (own.in_open[row] - 1) * width;
        std::copy_n(keys + from, width, to);
        std::copy_n(values + from, width, to + size);
    }
    for (long n = 0; n < rows * heads; n++) {
        const T* query = queries + n / heads * stride + n % heads * width;
        if (own.directions)
            meet_sketches(query, width, scale, own.directions + n / (heads / kv_heads) * width * own.numbers, own.numbers, &asked[n * own.numbers]);
        else
            meet_digests(query, width, scale, own.numbers, &asked[n * own.numbers]);
    }
    best_pages<T>(asked.data(), own.known, own.directions, own.room, own.full, own.reads, rows, heads, kv_heads, own.numbers, own.most, chosen.data());
    for (long pair = 0; pair < pairs; pair++) {
        int64_t *mine = chosen.data() + pair * own.most, *times = own.times + pair * (own.room + 1);
        for (long i = 0; i < own.reads[pair / kv_heads]; i++) {
            const long page = mine[i] / of_page;
            times[page]++;
            mine[i] = own.places[pair * own.room + page] * of_page + mine[i] % of_page;
        }
        times[own.full[pair / kv_heads]] += of_page;
    }
    attend_pages(queries, stride, Units<T>{own.pages, own.tokens, own.unit}, chosen.data(), own.reads, own.most, own.open, own.in_open, own.tokens, rows, heads,
                 kv_heads, width, scale, read);
}

}  // namespace
