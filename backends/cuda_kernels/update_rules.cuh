// Rules of optimizers, element by element: what their kernel points' bodies say, in the same order,
// and rounded after every operation. What a rule makes of options it computes in float64, and
// rounds once.
#pragma once

#include "rounded.cuh"

// Where options and counters lie, in the order of the kernel point's arguments; null if absent.
struct Given {
    const double *a, *b, *c, *d, *e, *f, *g, *h, *i;
    bool flag;
};

__device__ __forceinline__ Wide read(const double* number) { return {*number}; }

// What a rule sees of one element, and leaves there.
struct Element {
    Real p, g, s0, s1, s2;
};

// A moving average, from the shares of what was and of what comes.
struct Average {
    Real kept, fresh;

    __device__ __forceinline__ void by(Wide beta) {
        kept = narrow(beta);
        fresh = narrow(1 - beta);
    }

    __device__ __forceinline__ Real of(Real mean, Real x) const { return kept * mean + fresh * x; }
};

// Weight decay: into the gradient, or decoupled, as a factor of the parameter.
struct Decay {
    bool wanted, decoupled;
    Real share, keep;

    __device__ __forceinline__ void by(const double* decay) {
        wanted = decay;
        decoupled = false;
        if (wanted) share = narrow(read(decay));
    }

    __device__ __forceinline__ void by(const double* decay, Wide rate, bool apart) {
        by(decay);
        decoupled = apart;
        if (wanted) keep = narrow(1 - rate * read(decay));
    }

    __device__ __forceinline__ void apply(Element& at) const {
        if (!wanted) return;
        if (decoupled)
            at.p = keep * at.p;
        else
            at.g = at.g + share * at.p;
    }
};

// The running mean of gradients and of their squares, as Adam and its kin keep them.
struct Means {
    Average first, second;

    __device__ __forceinline__ void by(Wide beta1, Wide beta2) {
        first.by(beta1);
        second.by(beta2);
    }

    __device__ __forceinline__ void apply(Element& at) const {
        at.s0 = first.of(at.s0, at.g);
        at.s1 = second.of(at.s1, at.g * at.g);
    }
};

struct Sgd {
    Real rate;
    Decay decay;

    __device__ void prepare(const Given& at) {
        rate = narrow(read(at.a));
        decay.by(at.b);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        at.p = at.p - rate * at.g;
    }
};

struct Momentum {
    Real rate, kept, share;
    Decay decay;
    bool nesterov;

    __device__ void prepare(const Given& at) {
        rate = narrow(read(at.b));
        kept = narrow(read(at.c));
        share = *at.a > 1 ? narrow(1 - read(at.d)) : Real{1};
        decay.by(at.e);
        nesterov = at.flag;
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        at.s0 = kept * at.s0 + share * at.g;
        at.p = at.p - rate * (nesterov ? at.g + kept * at.s0 : at.s0);
    }
};

struct Lion {
    Real rate;
    Average ahead, mean;
    Decay decay;

    __device__ void prepare(const Given& at) {
        rate = narrow(read(at.a));
        ahead.by(read(at.b));
        mean.by(read(at.c));
        decay.by(at.d, read(at.a), true);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        const float blend = ahead.of(at.s0, at.g).x;
        const Real sign = {blend > 0 ? 1.0f : blend < 0 ? -1.0f : blend == 0 ? 0.0f : blend};
        decay.apply(at);
        at.p = at.p - rate * sign;
        at.s0 = mean.of(at.s0, at.g);
    }
};

// y and z one step on, as ``averaged`` of the free schedules has them.
struct Drift {
    Real weight, rest, drift;

    __device__ __forceinline__ void by(Wide share, Wide beta) {
        weight = narrow(share);
        rest = narrow(1 - share);
        drift = narrow(1 - beta * (1 - share));
    }

    __device__ __forceinline__ void apply(Element& at, Real step) const {
        at.p = (weight * at.s0 + rest * at.p) - drift * step;
        at.s0 = at.s0 - step;
    }
};

struct ScheduleFreeSgd {
    Real rate;
    Drift drift;
    Decay decay;

    __device__ void prepare(const Given& at) {
        rate = narrow(read(at.a));
        drift.by(read(at.b), read(at.c));
        decay.by(at.d);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        drift.apply(at, rate * at.g);
    }
};

struct ScheduleFreeAdamW {
    Real rate, least;
    Average second;
    Drift drift;
    Decay decay;

    __device__ void prepare(const Given& at) {
        rate = narrow(read(at.a));
        drift.by(read(at.b), read(at.c));
        second.by(read(at.d));
        least = narrow(read(at.e));
        decay.by(at.f);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        at.s1 = second.of(at.s1, at.g * at.g);
        at.g = at.g / (root(at.s1) + least);
        decay.apply(at);
        drift.apply(at, rate * at.g);
    }
};

struct Adam {
    Real rate, least;
    Means means;
    Decay decay;

    __device__ void prepare(const Given& at) {
        const Wide step = read(at.a), lr = read(at.b), beta1 = read(at.c), beta2 = read(at.d);
        const Wide correction = root(1 - power(beta2, step));
        rate = narrow(lr * correction / (1 - power(beta1, step)));
        least = narrow(read(at.e) * correction);
        means.by(beta1, beta2);
        decay.by(at.f, lr, at.flag);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool greatest) const {
        decay.apply(at);
        means.apply(at);
        if (greatest) at.s2 = greater(at.s2, at.s1);
        const Real square = greatest ? at.s2 : at.s1;
        at.p = at.p - rate * (at.s0 / (root(square) + least));
    }
};

struct Adamax {
    Real rate, kept, least;
    Average mean;
    Decay decay;

    __device__ void prepare(const Given& at) {
        const Wide step = read(at.a), lr = read(at.b), beta1 = read(at.c);
        rate = narrow(lr / (1 - power(beta1, step)));
        mean.by(beta1);
        kept = narrow(read(at.d));
        least = narrow(read(at.e));
        decay.by(at.f);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        at.s0 = mean.of(at.s0, at.g);
        at.s1 = greater(kept * at.s1, size(at.g) + least);
        at.p = at.p - rate * (at.s0 / at.s1);
    }
};

struct NAdam {
    Real now, ahead, correction, least;
    Means means;
    Decay decay;

    __device__ void prepare(const Given& at) {
        const Wide step = read(at.a), mu = read(at.b), next = read(at.c), product = read(at.d);
        const Wide lr = read(at.e), beta2 = read(at.g);
        now = narrow(lr * (1 - mu) / (1 - product));
        ahead = narrow(lr * next / (1 - product * next));
        correction = narrow(1 - power(beta2, step));
        least = narrow(read(at.h));
        means.by(read(at.f), beta2);
        decay.by(at.i, lr, at.flag);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        means.apply(at);
        at.p = at.p - (now * at.g + ahead * at.s0) / (root(at.s1 / correction) + least);
    }
};

struct RAdam {
    Real rate, rectifier, least;
    Means means;
    Decay decay;
    bool rectified;

    __device__ void prepare(const Given& at) {
        const Wide step = read(at.a), lr = read(at.b), beta1 = read(at.c), beta2 = read(at.d);
        const Wide decayed = power(beta2, step), correction = 1 - decayed;
        const Wide longest = 2 / (1 - beta2) - 1;
        const Wide length = longest - 2 * step * decayed / correction;
        rectified = length.x > 5;
        const Wide known = {rectified ? length.x : 5.0};
        rectifier = narrow(root((known - 4) * (known - 2) * longest /
                                ((longest - 4) * (longest - 2) * known) * correction));
        rate = narrow(lr / (1 - power(beta1, step)));
        least = narrow(read(at.e));
        means.by(beta1, beta2);
        decay.by(at.f, lr, at.flag);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        means.apply(at);
        const Real along = rate * at.s0;
        at.p = at.p - (rectified ? along * (rectifier / (root(at.s1) + least)) : along);
    }
};

struct Adagrad {
    Real rate, least;
    Decay decay;

    __device__ void prepare(const Given& at) {
        const Wide step = read(at.a), slower = read(at.c);
        rate = narrow(read(at.b) / (1 + (step - 1) * slower));
        least = narrow(read(at.d));
        decay.by(at.e);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        at.s0 = at.s0 + at.g * at.g;
        at.p = at.p - rate * (at.g / (root(at.s0) + least));
    }
};

struct Adadelta {
    Real rate, least;
    Average average;
    Decay decay;

    __device__ void prepare(const Given& at) {
        rate = narrow(read(at.a));
        average.by(read(at.b));
        least = narrow(read(at.c));
        decay.by(at.d);
    }

    __device__ __forceinline__ void step(Element& at, bool, bool) const {
        decay.apply(at);
        at.s0 = average.of(at.s0, at.g * at.g);
        const Real delta = root(at.s1 + least) / root(at.s0 + least) * at.g;
        at.s1 = average.of(at.s1, delta * delta);
        at.p = at.p - rate * delta;
    }
};

struct RmsProp {
    Real rate, least, momentum;
    Average average;
    Decay decay;

    __device__ void prepare(const Given& at) {
        rate = narrow(read(at.a));
        average.by(read(at.b));
        least = narrow(read(at.c));
        momentum = narrow(read(at.d));
        decay.by(at.e);
    }

    __device__ __forceinline__ void step(Element& at, bool moving, bool centred) const {
        decay.apply(at);
        Real square = at.s0 = average.of(at.s0, at.g * at.g);
        if (centred) {
            at.s2 = average.of(at.s2, at.g);
            square = square - at.s2 * at.s2;
        }
        Real direction = at.g / (root(square) + least);
        if (moving) direction = at.s1 = momentum * at.s1 + direction;
        at.p = at.p - rate * direction;
    }
};
