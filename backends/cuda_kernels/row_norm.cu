// Layer norm and its kin for x (N, G, K, S), row by row: a row is a group of a sample, K·S elements
// on end, and a team takes it. Sums are of float64; elements are computed in float32, as x̂ = (x -
// hi) r + lo with the mean's rounded value hi and what rounding lost in lo. What is read a second
// time comes from a cache. Around zero, for RMS norm, where there is no mean.

#include "channels.cuh"
#include "packs.cuh"
#include "teams.cuh"

// Rows of ``length`` elements, of channels of ``space`` each; γ and β are (groups, channels).
struct Rows {
    i64 count;
    int groups, channels, space;
    bool packed;

    __device__ __forceinline__ int length() const { return channels * space; }

    // Where the parameters of a row begin.
    __device__ __forceinline__ int parameters(i64 row) const {
        return static_cast<int>(row % groups) * channels;
    }
};

template <class T> __device__ constexpr int width = 16 / sizeof(T);

// A parameter of each of V elements from the i-th of a row on; ``otherwise`` where there are none.
template <int V>
__device__ __forceinline__ void load_each(float (&each)[V], const float* values, float otherwise,
                                          int i, const Rows& rows) {
    const bool one = rows.space % V == 0;  // all V are of one channel
    const float first = values && one ? values[i / rows.space] : otherwise;
#pragma unroll
    for (int j = 0; j < V; ++j) {
        each[j] = first;
        if (values && !one && i + j < rows.length())
            each[j] = values[rows.space == 1 ? i + j : (i + j) / rows.space];
    }
}

// x̂ = (x - hi) r + lo.
struct Standard {
    float hi, r, lo;

    __device__ __forceinline__ Standard(double mean, double rstd)
        : hi(static_cast<float>(mean)), r(static_cast<float>(rstd)),
          lo(static_cast<float>((hi - mean) * rstd)) {}
};

template <int W, class T>
__device__ __forceinline__ void normalize_row(const Team<W>& team, const T* x, const Standard& at,
                                              const float* weight, const float* bias, T* y,
                                              const Rows& rows) {
    constexpr int V = width<T>;
    const int length = rows.length();
    for (int i = team.member * V; i < length; i += W * V) {
        Pack<T, V> values = taken<V>(x, i, length, rows.packed);
        float scale[V], shift[V];
        load_each(scale, weight, 1.0f, i, rows);
        load_each(shift, bias, 0.0f, i, rows);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float x_hat = fmaf(wide(values.at[j]) - at.hi, at.r, at.lo);
            values.at[j] = stored<T>(fmaf(x_hat, scale[j], shift[j]));
        }
        left(y, values, i, length, rows.packed);
    }
}

// Mean and biased variance of each row, of differences from its first value, or its mean square;
// and rstd and y, where there are addresses for them.
template <class T, int W>
__global__ void __launch_bounds__(BLOCK, 2)
row_statistics(const T* __restrict__ x, double eps, const float* __restrict__ weight,
               const float* __restrict__ bias, T* __restrict__ y, double* __restrict__ mean,
               double* __restrict__ var, double* __restrict__ rstd, i64 count, int groups,
               int channels, int space, bool packed) {
    constexpr int V = width<T>;
    const Rows rows = {count, groups, channels, space, packed};
    const Team<W> team;
    if (team.row >= count) return;
    const int length = rows.length();
    const T* row = x + team.row * length;
    const double origin = mean ? wide(row[0]) : 0;
    double sum = 0, squares = 0;
    for (int i = team.member * V; i < length; i += W * V) {
        const Pack<T, V> values = taken<V>(row, i, length, packed);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const double d = i + j < length ? wide(values.at[j]) - origin : 0;
            sum += d;
            squares = fma(d, d, squares);
        }
    }
    sum = mean ? team.sum(sum) : 0;
    squares = team.sum(squares);
    const double shift = sum / length, centre = origin + shift;
    double spread = (squares - sum * shift) / length;
    if (spread < 0) spread = 0;  // NaN stays
    const double scale = 1 / sqrt(spread + eps);
    if (team.member == 0) {
        if (mean) mean[team.row] = centre;
        var[team.row] = spread;
        if (rstd) rstd[team.row] = scale;
    }
    if (!y) return;
    const int first = rows.parameters(team.row);
    normalize_row(team, row, Standard(centre, scale), weight ? weight + first : weight,
                  bias ? bias + first : bias, y + team.row * length, rows);
}

template <class T, int W>
__global__ void __launch_bounds__(BLOCK, 2)
row_normalize(const T* __restrict__ x, const double* __restrict__ mean,
              const double* __restrict__ rstd, const float* __restrict__ weight,
              const float* __restrict__ bias, T* __restrict__ y, i64 count, int groups,
              int channels, int space, bool packed) {
    const Rows rows = {count, groups, channels, space, packed};
    const Team<W> team;
    if (team.row >= count) return;
    const int first = rows.parameters(team.row);
    const i64 start = team.row * rows.length();
    const Standard at(mean ? mean[team.row] : 0, rstd[team.row]);
    normalize_row(team, x + start, at, weight ? weight + first : weight,
                  bias ? bias + first : bias, y + start, rows);
}

// dx = rstd (g - mean(g) - x̂ mean(g·x̂)), g = γ dy; without mean(g) around zero.
template <class T, int W>
__global__ void __launch_bounds__(BLOCK, 2)
row_grad_input(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ mean,
               const double* __restrict__ rstd, const float* __restrict__ weight,
               T* __restrict__ dx, i64 count, int groups, int channels, int space, bool packed) {
    constexpr int V = width<T>;
    const Rows rows = {count, groups, channels, space, packed};
    const Team<W> team;
    if (team.row >= count) return;
    const int length = rows.length();
    const i64 start = team.row * length;
    const double centre = mean ? mean[team.row] : 0, scale = rstd[team.row];
    if (weight) weight += rows.parameters(team.row);
    double sum = 0, product = 0;
    for (int i = team.member * V; i < length; i += W * V) {
        const Pack<T, V> grads = taken<V>(dy + start, i, length, packed);
        const Pack<T, V> values = taken<V>(x + start, i, length, packed);
        float gamma[V];
        load_each(gamma, weight, 1.0f, i, rows);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            if (i + j >= length) continue;
            const double g = static_cast<double>(wide(grads.at[j])) * gamma[j];
            sum += g;
            product = fma(g, wide(values.at[j]) - centre, product);
        }
    }
    const double mean_g = mean ? team.sum(sum) / length : 0;
    const double mean_product = team.sum(product) * scale / length;
    const Standard at(centre, scale);
    const float level = static_cast<float>(mean_g), slope = static_cast<float>(mean_product);
    // what the rounded means lack
    const float rest = static_cast<float>((centre - at.hi) * scale * mean_product -
                                          (mean_g - level));
    for (int i = team.member * V; i < length; i += W * V) {
        Pack<T, V> grads = taken<V>(dy + start, i, length, packed);
        const Pack<T, V> values = taken<V>(x + start, i, length, packed);
        float gamma[V];
        load_each(gamma, weight, 1.0f, i, rows);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float g = wide(grads.at[j]) * gamma[j];
            const float x_hat = (wide(values.at[j]) - at.hi) * at.r;
            grads.at[j] = stored<T>(at.r * ((g - level) + fmaf(-x_hat, slope, rest)));
        }
        left(dx + start, grads, i, length, packed);
    }
}

// Σ dy and Σ dy·x̂ of each channel (G·K): columns of all samples, whose rows each have a mean.
template <class T, int V, int K>
__global__ void __launch_bounds__(THREADS, 2)
row_grad_sums(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ mean,
              const double* __restrict__ rstd, int row_groups, int channels,
              double* __restrict__ sum, double* __restrict__ product, double* parts, u32* tickets,
              int items, int groups, int per_sample, u32 magic, int shift) {
    constexpr int FLIGHT = 4;
    const Place<V, K> place(items, groups, per_sample, magic, shift);
    const Share share(place, blockIdx.y);
    Sums<K> sums;
    int group[K];
#pragma unroll
    for (int j = 0; j < K; ++j) group[j] = (place.channel() + j) / channels;
    for (int i = share.first; i < share.end; i += FLIGHT * share.step) {
        Pack<T, V> grads[FLIGHT], values[FLIGHT];
        load_items(grads, dy, place, share, i);
        load_items(values, x, place, share, i);
#pragma unroll
        for (int u = 0; u < FLIGHT; ++u) {
            const int item = i + u * share.step;
            if (item >= share.end) continue;
            const i64 n = static_cast<i64>(static_cast<u64>(item) * magic >> shift);
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const i64 row = n * row_groups + group[e % K];
                const double g = wide(grads[u].at[e]);
                const double centred = wide(values[u].at[e]) - (mean ? mean[row] : 0);
                sums.a[e % K] += g;
                sums.b[e % K] = fma(g, centred * rstd[row], sums.b[e % K]);
            }
        }
    }
    if (!total(sums, place, parts, tickets)) return;
#pragma unroll
    for (int j = 0; j < K; ++j) {
        sum[place.channel() + j] = sums.a[j];
        product[place.channel() + j] = sums.b[j];
    }
}
