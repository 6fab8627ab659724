// What LARS and LAMB measure of a parameter, the rate that follows, and the step by it; rounded as
// their bodies round.
#pragma once

#include "update_rules.cuh"

struct Lars {
    static constexpr bool moves_before = false;  // whether state moves before the rate is known
    Wide lr, trust, penalty;
    Real kept;
    Decay decay;

    __device__ void prepare(const Given& at) {
        lr = read(at.a);
        kept = narrow(read(at.b));
        decay.by(at.c);
        if (decay.wanted) penalty = read(at.c);
        trust = read(at.d);
    }

    __device__ __forceinline__ Real measured(Element& at) const { return at.g; }

    __device__ __forceinline__ Real rate(Wide length, Wide reach) const {
        if (decay.wanted) reach = reach + penalty * length;
        const bool moving = length.x > 0 && reach.x > 0;
        return narrow(lr * (moving ? trust * length / reach : Wide{1}));
    }

    __device__ __forceinline__ void step(Element& at, Real rate) const {
        decay.apply(at);
        at.s0 = kept * at.s0 + rate * at.g;
        at.p = at.p - at.s0;
    }
};

struct Lamb {
    static constexpr bool moves_before = true;
    Wide lr;
    Real first, second, least;
    Means means;
    Decay decay;

    __device__ void prepare(const Given& at) {
        const Wide step = read(at.a), beta1 = read(at.c), beta2 = read(at.d);
        lr = read(at.b);
        first = narrow(1 - power(beta1, step));
        second = narrow(1 - power(beta2, step));
        least = narrow(read(at.e));
        means.by(beta1, beta2);
        decay.by(at.f);
    }

    // Adam's direction, from means that have moved.
    __device__ __forceinline__ Real direction(const Element& at) const {
        const Real u = at.s0 / first / (root(at.s1 / second) + least);
        return decay.wanted ? u + decay.share * at.p : u;
    }

    __device__ __forceinline__ Real measured(Element& at) const {
        means.apply(at);
        return direction(at);
    }

    __device__ __forceinline__ Real rate(Wide length, Wide reach) const {
        const bool moving = length.x > 0 && reach.x > 0;
        return narrow(lr * (moving ? length / reach : Wide{1}));
    }

    __device__ __forceinline__ void step(Element& at, Real rate) const {
        at.p = at.p - rate * direction(at);
    }
};
