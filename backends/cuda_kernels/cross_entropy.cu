// Softmax cross-entropy of scores x (N, C) and labels (N,), and its gradient. A team takes a row,
// and reads it twice, the second time from a cache. Exponentials are of float32, their sum is of
// float64.

#include "teams.cuh"

template <int W, int V>
__global__ void __launch_bounds__(BLOCK)
cross_entropy(const float* __restrict__ x, const i64* __restrict__ target,
              const float* __restrict__ weight, i64 ignored, bool smooth, float keep, float share,
              float* __restrict__ losses, float* __restrict__ found,
              float* __restrict__ greatest, float* __restrict__ total, i64 rows, int classes) {
    const Team<W> team;
    if (team.row >= rows) return;
    const float* scores = x + team.row * classes;
    float most = __uint_as_float(0xff800000u);  // -∞
    for (int k = team.member * V; k < classes; k += W * V) {
        const Pack<float, V> pack = loaded<V>(scores + k);
#pragma unroll
        for (int j = 0; j < V; ++j)
            most = pack.at[j] > most || pack.at[j] != pack.at[j] ? pack.at[j] : most;
    }
    most = team.max(most);
    double powers = 0;
    for (int k = team.member * V; k < classes; k += W * V) {
        const Pack<float, V> pack = loaded<V>(scores + k);
#pragma unroll
        for (int j = 0; j < V; ++j) powers += static_cast<double>(expf(pack.at[j] - most));
    }
    const float log_sum = static_cast<float>(log(team.sum(powers)));
    double costs = 0;  // of each class in place of the label's
    if (smooth) {
        for (int k = team.member; k < classes; k += W) {
            const float cost = log_sum - (scores[k] - most);
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
    float loss = w * (log_sum - (scores[index] - most));
    if (smooth) loss = keep * loss + share * static_cast<float>(costs);
    losses[team.row] = label == ignored ? 0.0f : loss;
    found[team.row] = w;
    greatest[team.row] = most;
    total[team.row] = log_sum;
}

// dx = dy (mass p - wanted): ``even`` is wanted of each class, by its weight, and of the label what
// is kept of its own besides. dy has one number for all rows where ``step`` is 0.
template <int W, int V>
__global__ void __launch_bounds__(BLOCK)
cross_entropy_grad(const float* __restrict__ dy, int step, const float* __restrict__ x,
                   const i64* __restrict__ target, const float* __restrict__ weight,
                   const float* __restrict__ found, const float* __restrict__ greatest,
                   const float* __restrict__ total, i64 ignored, float keep, float even,
                   float* __restrict__ dx, i64 rows, int classes) {
    const Team<W> team;
    if (team.row >= rows) return;
    const i64 start = team.row * classes, label = target[team.row];
    const bool passed_over = label == ignored;
    double shares = classes;
    if (weight && even != 0) {
        shares = 0;
        for (int k = team.member; k < classes; k += W) shares += static_cast<double>(weight[k]);
        shares = team.sum(shares);
    }
    const float grad = dy[team.row * step], most = greatest[team.row], log_sum = total[team.row];
    const float own = keep * found[team.row], mass = own + even * static_cast<float>(shares);
    const float none = own * 0.0f;  // NaN for what is no label
    for (int k = team.member * V; k < classes; k += W * V) {
        Pack<float, V> pack = loaded<V>(x + start + k);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            float wanted = k + j == label ? own : none;
            if (even != 0) wanted += even * (weight ? weight[k + j] : 1.0f);
            const float p = expf(pack.at[j] - most - log_sum);
            pack.at[j] = passed_over ? 0.0f : grad * (mass * p - wanted);
        }
        store(dx + start + k, pack);
    }
}
