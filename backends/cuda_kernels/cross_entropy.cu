// Softmax cross-entropy of scores x (N, C, S) and labels (N, S), and its gradient. A team takes a
// label, and reads its scores twice, the second time from a cache: where S = 1, a warp or a block,
// in packs; else a thread, beside others for the positions next to it. Exponentials are of float32,
// their sum is of float64.

#include "teams.cuh"

// The first score of a label; the others are ``step(space)`` apart.
template <int W>
__device__ __forceinline__ i64 first_of(const Team<W>& team, int classes, int space) {
    if constexpr (W > 1) return team.row * classes;
    const i64 sample = team.row / space;
    return sample * classes * space + (team.row - sample * space);
}

template <int W> __device__ __forceinline__ i64 step(int space) { return W > 1 ? 1 : space; }

template <class T, int W, int V>
__global__ void __launch_bounds__(BLOCK)
cross_entropy(const T* __restrict__ x, const i64* __restrict__ target,
              const float* __restrict__ weight, i64 ignored, bool smooth, float keep, float share,
              float* __restrict__ losses, float* __restrict__ found,
              float* __restrict__ greatest, float* __restrict__ total, i64 labels, int classes,
              int space) {
    const Team<W> team;
    if (team.row >= labels) return;
    const T* scores = x + first_of(team, classes, space);
    const i64 apart = step<W>(space);
    float most = __uint_as_float(0xff800000u);  // -∞
    for (int k = team.member * V; k < classes; k += W * V) {
        const Pack<T, V> pack = loaded<V>(scores + k * apart);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float score = wide(pack.at[j]);
            most = score > most || score != score ? score : most;
        }
    }
    most = team.max(most);
    double powers = 0;
    for (int k = team.member * V; k < classes; k += W * V) {
        const Pack<T, V> pack = loaded<V>(scores + k * apart);
#pragma unroll
        for (int j = 0; j < V; ++j)
            powers += static_cast<double>(expf(wide(pack.at[j]) - most));
    }
    const float log_sum = static_cast<float>(log(team.sum(powers)));
    double costs = 0;  // of each class in place of the label's
    if (smooth) {
        for (int k = team.member; k < classes; k += W) {
            const float cost = log_sum - (wide(scores[k * apart]) - most);
            costs += static_cast<double>(weight ? cost * weight[k] : cost);
        }
        costs = team.sum(costs) / classes;
    }
    if (team.member) return;
    const i64 label = target[team.row];
    const bool known = label >= 0 && label < classes;
    const i64 index = known ? label : 0;
    const float nan = __uint_as_float(0x7fc00000u);
    const float share_of_label = known ? (weight ? weight[index] : 1.0f) : nan;
    const float w = label == ignored ? 0.0f : share_of_label;
    float loss = w * (log_sum - (wide(scores[index * apart]) - most));
    if (smooth) loss = keep * loss + share * static_cast<float>(costs);
    losses[team.row] = label == ignored ? 0.0f : loss;
    found[team.row] = w;
    greatest[team.row] = most;
    total[team.row] = log_sum;
}

// dx = dy (mass p - wanted): ``even`` is wanted of each class, by its weight, and of the label what
// is kept of its own besides. dy has one number for all labels where ``each`` is 0; it is times
// ``factor``, where there is one.
template <class T, int W, int V>
__global__ void __launch_bounds__(BLOCK)
cross_entropy_grad(const float* __restrict__ dy, const float* __restrict__ factor, int each,
                   const T* __restrict__ x, const i64* __restrict__ target,
                   const float* __restrict__ weight, const float* __restrict__ found,
                   const float* __restrict__ greatest, const float* __restrict__ total,
                   i64 ignored, float keep, float even, T* __restrict__ dx, i64 labels,
                   int classes, int space) {
    const Team<W> team;
    if (team.row >= labels) return;
    const i64 start = first_of(team, classes, space), apart = step<W>(space);
    const i64 label = target[team.row];
    const bool passed_over = label == ignored;
    double shares = classes;
    if (weight && even != 0) {
        shares = 0;
        for (int k = team.member; k < classes; k += W) shares += static_cast<double>(weight[k]);
        shares = team.sum(shares);
    }
    const float grad = dy[team.row * each] * (factor ? *factor : 1.0f);
    const float most = greatest[team.row], log_sum = total[team.row];
    const float own = keep * found[team.row], mass = own + even * static_cast<float>(shares);
    const float none = own * 0.0f;  // NaN for what is no label
    for (int k = team.member * V; k < classes; k += W * V) {
        Pack<T, V> pack = loaded<V>(x + start + k * apart);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            float wanted = k + j == label ? own : none;
            if (even != 0) wanted += even * (weight ? weight[k + j] : 1.0f);
            const float p = expf(wide(pack.at[j]) - most - log_sum);
            pack.at[j] = stored<T>(passed_over ? 0.0f : grad * (mass * p - wanted));
        }
        store(dx + start + k * apart, pack);
    }
}

// The sum of the losses over that of their weights, NaN of none, and what one of them counts in it.
template <class T>
__global__ void __launch_bounds__(BLOCK)
mean_loss(const float* __restrict__ losses, const float* __restrict__ weights, double* parts,
          u32* ticket, T* __restrict__ mean, float* __restrict__ share, i64 labels) {
    double sum = 0, count = 0;
    const i64 stride = static_cast<i64>(gridDim.x) * BLOCK;
    for (i64 i = static_cast<i64>(blockIdx.x) * BLOCK + threadIdx.x; i < labels; i += stride) {
        sum += static_cast<double>(losses[i]);
        count += static_cast<double>(weights[i]);
    }
    sum = block_sum(sum);
    count = block_sum(count);
    if (gridDim.x > 1) {
        if (threadIdx.x == 0) {
            parts[2 * blockIdx.x] = sum;
            parts[2 * blockIdx.x + 1] = count;
        }
        if (!last_of(ticket, gridDim.x)) return;
        sum = count = 0;
        for (int i = threadIdx.x; i < gridDim.x; i += BLOCK) {
            sum += __ldcg(parts + 2 * i);
            count += __ldcg(parts + 2 * i + 1);
        }
        sum = block_sum(sum);
        count = block_sum(count);
    }
    if (threadIdx.x) return;
    const double one = count == 0 ? static_cast<double>(__uint_as_float(0x7fc00000u)) : 1 / count;
    *mean = stored<T>(static_cast<float>(sum * one));
    *share = static_cast<float>(one);
}
