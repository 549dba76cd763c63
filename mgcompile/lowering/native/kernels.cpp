// The kernels of models that are optimised for inference: convolutions of 3x3 kernels on several grids, and pooling.
//
// The convolutions are by F(4x4, 3x3): 4x4 outputs of 36 products instead of 144. Winograd, "Arithmetic Complexity of
// Computations" (1980); Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). Each 1-D transform
// is Toom-Cook at the points 0, +-A, +-B and infinity: with m(x) = x (x^2 - A^2) (x^2 - B^2), the patch is multiplied by
// the coefficients of m(x) / (x - point), the kernel by (1, point, point^2) / m'(point), and the products are summed with
// the weights point^0 ... point^3. Of a dozen pairs of points tried, these err least: half as much as 1 and 2.
//
// Grids are NHWC: the channels of a cell side by side. A convolution reads several of them, the parts, as if each
// had been made finer by 2^step (nearest) and all had been concatenated: the patches are read from where they are.
//
// A tile is 4x4 cells of the output, and its patch the 6x6 cells of the input that they see. A thread transforms the
// patches of a few tiles into V, (36, tiles, depth), that stays in its level-2 cache; for each block of output channels
// it makes 36 matrix products with the kernel's U, (blocks, 36, depth, block), and transforms these, with bias, addend
// and ReLU, into the output. Grids may be bfloat16; the kernel, the sums and what lies between are single precision.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <omp.h>
#include <unistd.h>
#include <utility>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 14; // 14 x 2 sums, two weights and an input fill the 32 registers
#else
constexpr int LANES = 8, ROWS = 6; // 6 x 2 sums of 16 registers
#endif
constexpr int WIDE = 2, BLOCK = WIDE * LANES;
constexpr int TILE = 4, PATCH = 6, POINTS = PATCH * PATCH;
constexpr int MOST_CHANNELS = 1 << 14; // of one part
constexpr int RUN = 128; // so many products are summed at once: their weights fit the first cache, and it errs less
constexpr size_t SHARED_BYTES = 6u << 20;

constexpr float A = 0.625f, B = 1.5f, A2 = A * A, B2 = B * B;

typedef float Vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float Anywhere __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline Vec load(const float *p) { return *reinterpret_cast<const Anywhere *>(p); }
inline void store(float *p, Vec v) { *reinterpret_cast<Anywhere *>(p) = v; }

// The first n of the lanes; the others are zero.
inline Vec load(const float *p, int n) {
    if (n >= LANES) return load(p);
    Vec v = {};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
}
inline void store(float *p, Vec v, int n) {
    if (n >= LANES) return store(p, v);
    for (int i = 0; i < n; i++) p[i] = v[i];
}

// bfloat16: the upper half of a float.
struct bf16 {
    uint16_t bits;
};
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
typedef uint16_t HalvesAnywhere __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));

inline Vec load(const bf16 *p) {
    Halves upper = *reinterpret_cast<const HalvesAnywhere *>(p);
    return (Vec)(__builtin_convertvector(upper, Words) << 16);
}
inline void store(bf16 *p, Vec v) { // to the nearest, to even at halves; what is not a number stays one
    Words word = (Words)v, round = word + 0x7fff + ((word >> 16) & 1);
    Words kept = (Words)(v == v ? (Vec)round : (Vec)(word | 0x400000));
    *reinterpret_cast<HalvesAnywhere *>(p) = __builtin_convertvector(kept >> 16, Halves);
}
inline Vec load(const bf16 *p, int n) {
    if (n >= LANES) return load(p);
    bf16 whole[LANES] = {};
    for (int i = 0; i < n; i++) whole[i] = p[i];
    return load(whole);
}
inline void store(bf16 *p, Vec v, int n) {
    if (n >= LANES) return store(p, v);
    bf16 whole[LANES];
    store(whole, v);
    for (int i = 0; i < n; i++) p[i] = whole[i];
}

inline Vec all(float x) {
#if defined(__AVX512F__)
    return Vec{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#else
    return Vec{x, x, x, x, x, x, x, x};
#endif
}

inline Vec larger(Vec a, Vec b) {
    Vec m = a > b ? a : b; // b where a is not a number
    return a != a ? a : m;
}

// Beyond 2^64, and for what is not a number, plain operations decide. A sum of squares is then infinite or no number, and
// sometimes from 2^64 / sqrt(summands) on; it takes one instruction for each vector, which the products hide.
inline bool within_limit(Vec squares) {
    bool all = true;
    for (int i = 0; i < LANES; i++) all &= squares[i] < __builtin_inff(); // false for what is not a number
    return all;
}

inline Vec rectified(Vec z) { return z < 0 ? Vec{} : z; } // what is not a number stays

inline int up_to(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Six cells of a patch, in a row or a column -> six values.
inline void from_patch(const Vec *d, Vec *v) {
    Vec even_a = d[4] - B2 * d[2], odd_a = A * (d[3] - B2 * d[1]);
    Vec even_b = d[4] - A2 * d[2], odd_b = B * (d[3] - A2 * d[1]);
    v[0] = d[4] + (A2 * B2 * d[0] - (A2 + B2) * d[2]);
    v[1] = even_a + odd_a;
    v[2] = even_a - odd_a;
    v[3] = even_b + odd_b;
    v[4] = even_b - odd_b;
    v[5] = d[5] + (A2 * B2 * d[1] - (A2 + B2) * d[3]);
}

// Six products -> four cells of the output.
inline void to_tile(const Vec *m, Vec *y) {
    Vec even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = A * odd_a + B * odd_b;
    y[2] = A2 * even_a + B2 * even_b;
    y[3] = A2 * A * odd_a + (B2 * B * odd_b + m[5]);
}

// m (R, N * LANES) = or += v (R, `run`) x u (run, N * LANES).
template <int R, int N> void product(const float *v, const float *u, int run, bool first, float *m) {
    constexpr int NEAR = 5; // rows that one address reaches, with few registers for the distances
    const float *rows[] = {v, v + (R > NEAR ? NEAR * run : 0), v + (R > 2 * NEAR ? 2 * NEAR * run : 0)};
    Vec sum[R][N] = {};
    for (int c = 0; c < run; c++) {
        Vec weight[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) weight[j] = load(u + j * LANES);
        u += N * LANES;
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            Vec x = all(rows[i / NEAR][(ptrdiff_t)(i % NEAR) * run]);
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) sum[i][j] += x * weight[j];
        }
        rows[0]++, rows[1]++, rows[2]++;
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) {
            float *to = m + ((size_t)i * N + j) * LANES;
            store(to, first ? sum[i][j] : load(to) + sum[i][j]);
        }
}

using Product = void (*)(const float *, const float *, int, bool, float *);

// The products of 1 to ROWS rows.
template <int N> struct Products {
    Product of[ROWS + 1];
    template <int... R> constexpr Products(std::integer_sequence<int, R...>) : of{nullptr, product<R + 1, N>...} {}
    constexpr Products() : Products(std::make_integer_sequence<int, ROWS>()) {}
};
template <int N> constexpr Products<N> products;

// Memory that a thread keeps from call to call.
struct Buffer {
    float *data = nullptr;
    size_t size = 0;
    float *of(size_t floats) {
        if (floats > size) {
            std::free(data);
            size = (floats + 1023) / 1024 * 1024;
            data = static_cast<float *>(std::aligned_alloc(4096, size * sizeof(float)));
            if (!data) std::abort();
        }
        return data;
    }
    ~Buffer() { std::free(data); }
};
thread_local Buffer own, common;

alignas(64) const float zeros[MOST_CHANNELS] = {};

size_t cache_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    static const long found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (found >= 1 << 18) return std::min<long>(found, 4 << 20);
#endif
    return 1 << 20;
}

} // namespace

extern "C" {

// Of a part: the size is that of the grid as it lies in memory.
struct Part {
    int channels, height, width, step;
};

// `fine_*` is the size of the parts when they have been made finer; pads are those above and to the left.
struct Conv {
    const float *kernel, *bias;
    const Part *parts;
    int count, batch, fine_height, fine_width, height, width, channels, top, left, relu;
    int half; // whether grids are bfloat16
};

// The rows of a transformed kernel: the channels of each part, rounded up to lanes, and all to runs of one length.
static int run_of(int depth) {
    int runs = (depth + RUN - 1) / RUN;
    return up_to((depth + runs - 1) / runs, LANES);
}
static int depth_of(const Part *parts, int count) {
    int depth = 0;
    for (int k = 0; k < count; k++) depth += up_to(parts[k].channels, LANES);
    return up_to(depth, run_of(depth));
}

// The floats of a transformed kernel.
size_t mgcompile_winograd_size(const Part *parts, int count, int channels) {
    return (size_t)POINTS * depth_of(parts, count) * up_to(channels, LANES);
}

// weight (channels, sum of the parts' channels, 3, 3) -> u.
void mgcompile_winograd_kernel(const float *weight, const Part *parts, int count, int channels, float *u, int threads) {
    double g[PATCH][3] = {{1, 0, 0}, {}, {}, {}, {}, {0, 0, 1}};
    const double points[] = {0, A, -A, B, -B};
    for (int i = 0; i < 5; i++) {
        double slope = 1;
        for (int j = 0; j < 5; j++) slope *= i == j ? 1 : points[i] - points[j];
        for (int power = 0; power < 3; power++) g[i][power] = (power > 0 ? points[i] : 1) * (power > 1 ? points[i] : 1) / slope;
    }
    int depth = depth_of(parts, count), given = 0, used = 0; // what is beyond `used` pads the last run
    for (int k = 0; k < count; k++) given += parts[k].channels, used += up_to(parts[k].channels, LANES);
    int blocks = (channels + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) collapse(2)
    for (int block = 0; block < blocks; block++)
        for (int row = 0; row < depth; row++) {
            int first = block * BLOCK, lanes = channels - first > LANES ? BLOCK : LANES;
            int channel = 0, rest = row, part = 0; // of the weight; none where the row pads a part
            while (row < used && rest >= up_to(parts[part].channels, LANES)) {
                rest -= up_to(parts[part].channels, LANES);
                channel += parts[part++].channels;
            }
            bool real = row < used && rest < parts[part].channels;
            float *to = u + ((size_t)first * POINTS + 0) * depth;
            for (int lane = 0; lane < lanes; lane++) {
                double half[PATCH][3] = {};
                if (real && first + lane < channels) {
                    const float *w = weight + ((size_t)(first + lane) * given + channel + rest) * 9;
                    for (int i = 0; i < PATCH; i++)
                        for (int b = 0; b < 3; b++)
                            for (int a = 0; a < 3; a++) half[i][b] += g[i][a] * w[a * 3 + b];
                }
                for (int i = 0; i < PATCH; i++)
                    for (int j = 0; j < PATCH; j++) {
                        double value = 0;
                        for (int b = 0; b < 3; b++) value += half[i][b] * g[j][b];
                        to[((size_t)(i * PATCH + j) * depth + row) * lanes + lane] = (float)value;
                    }
            }
        }
}

} // extern "C"

namespace {

// One convolution of given grids.
template <typename Number> struct Job {
    const Conv &conv;
    const Number *const *data;
    const Number *add;
    Number *y;
    int depth, run, down, across;
    int beyond = 0; // whether a cell of the output, before ReLU, is not within the limit

    int tiles() const { return conv.batch * down * across; }

    // The patch of one tile -> row t of each of the 36 matrices of v, which have `rows` rows. v is (36, runs, rows, run):
    // what is multiplied together lies together.
    void transform_patch(int tile, int t, int rows, float *v) const {
        int image = tile / (down * across);
        int y0 = tile / across % down * TILE - conv.top, x0 = tile % across * TILE - conv.left;
        int at = 0;
        for (int k = 0; k < conv.count; k++) {
            const Part &part = conv.parts[k];
            const Number *base = data[k] + (size_t)image * part.height * part.width * part.channels;
            const Number *cells[PATCH][PATCH];
            for (int i = 0; i < PATCH; i++)
                for (int j = 0; j < PATCH; j++) {
                    int row = y0 + i, column = x0 + j;
                    bool inside = row >= 0 && column >= 0 && row < conv.fine_height && column < conv.fine_width;
                    size_t cell = (size_t)(row >> part.step) * part.width + (column >> part.step);
                    cells[i][j] = inside ? base + cell * part.channels : (const Number *)zeros;
                }
            int full = part.channels / LANES * LANES;
            for (int c = 0; c < full; c += LANES) transform<false>(cells, c, LANES, v + place(at + c, t, rows), rows);
            if (full < part.channels)
                transform<true>(cells, full, part.channels - full, v + place(at + full, t, rows), rows);
            at += up_to(part.channels, LANES);
        }
        for (; at < depth; at += LANES) // what pads the last run; its weights are zero, but not what memory held
            for (int p = 0; p < POINTS; p++) store(v + (size_t)p * rows * depth + place(at, t, rows), Vec{});
    }

    size_t place(int channel, int t, int rows) const {
        return ((size_t)(channel / run) * rows + t) * run + channel % run;
    }

    template <bool PARTIAL>
    void transform(const Number *const (*cells)[PATCH], int channel, int lanes, float *v, int rows) const {
        Vec half[PATCH][PATCH];
        for (int j = 0; j < PATCH; j++) {
            Vec column[PATCH], values[PATCH];
            for (int i = 0; i < PATCH; i++)
                column[i] = PARTIAL ? load(cells[i][j] + channel, lanes) : load(cells[i][j] + channel);
            from_patch(column, values);
            for (int i = 0; i < PATCH; i++) half[i][j] = values[i];
        }
        for (int i = 0; i < PATCH; i++) {
            Vec values[PATCH];
            from_patch(half[i], values);
            for (int j = 0; j < PATCH; j++) store(v + (size_t)(i * PATCH + j) * rows * depth, values[j]);
        }
    }

    // n tiles, from `first` on, and one block of output channels; m is room for (36, rows, BLOCK).
    void block(int number, int first, int n, int rows, const float *v, float *m) {
        if (conv.channels - number * BLOCK > LANES)
            channels<WIDE>(number * BLOCK, first, n, rows, v, m);
        else
            channels<1>(number * BLOCK, first, n, rows, v, m);
    }

    template <int N> void channels(int channel, int first, int n, int rows, const float *v, float *m) {
        const float *u = conv.kernel + (size_t)POINTS * depth * channel;
        int parts = (n + ROWS - 1) / ROWS, height = (n + parts - 1) / parts;
        for (int p = 0; p < POINTS; p++)
            for (int c = 0; c < depth; c += run)
                for (int t = 0; t < n; t += height)
                    products<N>.of[std::min(height, n - t)](
                        v + ((size_t)p * depth + c) * rows + (size_t)t * run, u + ((size_t)p * depth + c) * N * LANES,
                        run, c == 0, m + ((size_t)p * rows + t) * N * LANES);
        Vec squares = {};
        for (int t = 0; t < n; t++)
            for (int j = 0; j < N && channel + j * LANES < conv.channels; j++)
                squares += write_tile(first + t, channel + j * LANES, m + ((size_t)t * N + j) * LANES, (size_t)rows * N * LANES);
        if (!within_limit(squares)) {
#pragma omp atomic write
            beyond = 1;
        }
    }

    // The 36 products of a tile, `stride` apart -> its cells of the output, and the sums of their squares.
    Vec write_tile(int tile, int channel, const float *m, size_t stride) const {
        int image = tile / (down * across), y0 = tile / across % down * TILE, x0 = tile % across * TILE;
        int h = std::min(TILE, conv.height - y0), w = std::min(TILE, conv.width - x0);
        int lanes = conv.channels - channel;
        Vec half[TILE][PATCH];
        for (int j = 0; j < PATCH; j++) {
            Vec column[PATCH], values[TILE];
            for (int i = 0; i < PATCH; i++) column[i] = load(m + (i * PATCH + j) * stride);
            to_tile(column, values);
            for (int i = 0; i < TILE; i++) half[i][j] = values[i];
        }
        Vec bias = conv.bias ? load(conv.bias + channel, lanes) : Vec{}, squares = {};
        for (int i = 0; i < h; i++) {
            Vec values[TILE];
            to_tile(half[i], values);
            size_t at = (((size_t)image * conv.height + y0 + i) * conv.width + x0) * conv.channels + channel;
            for (int j = 0; j < w; j++, at += conv.channels) {
                Vec z = values[j] + bias;
                if (add) z += load(add + at, lanes);
                squares += z * z;
                if (conv.relu) z = rectified(z);
                store(y + at, z, lanes);
            }
        }
        return squares;
    }

    // Every thread takes tiles of its own and makes all their channels.
    void run_apart(int threads) {
        size_t fits = cache_bytes() * 5 / 6 / (POINTS * (depth + BLOCK) * sizeof(float));
        int rows = std::clamp<int>(fits / ROWS * ROWS, ROWS, 4 * ROWS);
        int pieces = (tiles() + rows - 1) / rows, blocks = (conv.channels + BLOCK - 1) / BLOCK;
        if (pieces < 4 * threads) pieces = up_to(pieces, threads); // the same for each
        rows = (tiles() + pieces - 1) / pieces;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (int piece = 0; piece < pieces; piece++) {
            int first = piece * rows, n = std::min(rows, tiles() - first);
            if (n <= 0) continue;
            float *v = own.of((size_t)POINTS * rows * (depth + BLOCK)), *m = v + (size_t)POINTS * rows * depth;
            for (int t = 0; t < n; t++) transform_patch(first + t, t, rows, v);
            for (int number = 0; number < blocks; number++) block(number, first, n, rows, v, m);
        }
    }

    // The threads share the transformed patches, and each makes channels of its own: reads the kernel but once.
    void run_together(int threads) {
        int rows = std::clamp<int>(SHARED_BYTES / (POINTS * depth * sizeof(float)), ROWS, std::max(ROWS, tiles()));
        int blocks = (conv.channels + BLOCK - 1) / BLOCK;
        float *v = common.of((size_t)POINTS * rows * depth);
#pragma omp parallel num_threads(threads)
        {
            float *m = own.of((size_t)POINTS * rows * BLOCK);
            for (int first = 0; first < tiles(); first += rows) {
                int n = std::min(rows, tiles() - first);
#pragma omp for schedule(static)
                for (int t = 0; t < n; t++) transform_patch(first + t, t, rows, v);
#pragma omp for schedule(dynamic, 1)
                for (int number = 0; number < blocks; number++) block(number, first, n, rows, v, m);
            }
        }
    }
};

template <typename Number>
int convolve(const Conv &conv, const Number *const *data, const Number *add, Number *y, int threads) {
    int down = (conv.height + TILE - 1) / TILE, across = (conv.width + TILE - 1) / TILE;
    int depth = depth_of(conv.parts, conv.count);
    Job<Number> job{conv, data, add, y, depth, run_of(depth), down, across};
    bool few = job.tiles() < 4 * threads && conv.channels > BLOCK * (threads - 1);
    if (few && threads > 1)
        job.run_together(threads);
    else
        job.run_apart(threads);
    return !job.beyond;
}

// Whether all numbers, as they come, are within the limit; ReLU in place, if asked for.
template <typename Number> int finish(Number *y, size_t count, int relu, int threads) {
    constexpr size_t PIECE = 1 << 13;
    size_t pieces = (count + PIECE - 1) / PIECE;
    int beyond = 0;
    if (pieces < 4) threads = 1; // it takes less than starting the others
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1) reduction(| : beyond)
    for (size_t piece = 0; piece < pieces; piece++) {
        size_t end = std::min(count, (piece + 1) * PIECE);
        Vec squares = {};
        for (size_t i = piece * PIECE; i < end; i += LANES) {
            int n = (int)std::min<size_t>(LANES, end - i);
            Vec z = load(y + i, n);
            squares += z * z;
            if (relu) store(y + i, rectified(z), n);
        }
        beyond |= !within_limit(squares);
    }
    return !beyond;
}

// The maximum over 2x2 windows.
template <typename Number>
void pool(const Number *x, Number *y, int batch, int height, int width, int channels, int threads) {
    int rows = (height + 1) / 2, columns = (width + 1) / 2;
    auto row = [=](int number) {
        int image = number / rows, top = number % rows * 2;
        const Number *upper = x + ((size_t)image * height + top) * width * channels;
        const Number *lower = top + 1 < height ? upper + (size_t)width * channels : upper;
        Number *to = y + (size_t)number * columns * channels;
        for (int column = 0; column < columns; column++, to += channels) {
            size_t left = (size_t)column * 2 * channels, right = column * 2 + 1 < width ? left + channels : left;
            for (int c = 0; c < channels; c += LANES) {
                int n = channels - c;
                Vec above = larger(load(upper + left + c, n), load(upper + right + c, n));
                Vec below = larger(load(lower + left + c, n), load(lower + right + c, n));
                store(to + c, larger(above, below), n);
            }
        }
    };
    if ((size_t)batch * height * width * channels < 1 << 14) threads = 1; // it takes less than starting the others
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int number = 0; number < batch * rows; number++) row(number);
}

} // namespace

extern "C" {

// y = relu?(convolution of the parts + bias + add), all NHWC; `data` has one address for each part, `add` may be null.
// Zero where a cell is not within the limit before ReLU: then y is of no use, since a tile shares what is no number.
int mgcompile_winograd(const Conv *conv, const void *const *data, const void *add, void *y, int threads) {
    if (conv->half)
        return convolve(*conv, (const bf16 *const *)data, (const bf16 *)add, (bf16 *)y, threads);
    return convolve(*conv, (const float *const *)data, (const float *)add, (float *)y, threads);
}

// Whether `count` numbers, side by side, are within the limit; ReLU in place, if asked for, keeps what is no number.
int mgcompile_finish(void *y, size_t count, int relu, int half, int threads) {
    if (half) return finish((bf16 *)y, count, relu, threads);
    return finish((float *)y, count, relu, threads);
}

// x (batch, height, width, channels) -> y, half as high and wide, rounded up: the maximum over 2x2 windows, of the cells
// that exist. What is not a number wins, as in PyTorch.
void mgcompile_pool_2x2(
    const void *x, void *y, int half, int batch, int height, int width, int channels, int threads) {
    if (half)
        pool((const bf16 *)x, (bf16 *)y, batch, height, width, channels, threads);
    else
        pool((const float *)x, (float *)y, batch, height, width, channels, threads);
}

} // extern "C"
