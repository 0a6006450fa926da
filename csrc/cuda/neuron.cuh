// One neuron on the device, all channels of a point: what an activation makes of its pre-activations, and the pull-back
// (core/faa_di_bruno.h). Where the channels stand is the caller's affair: z, stash and g read one, keep, h and zbar
// write one.
#pragma once

#include "../core/activation_jet.h"
#include "../core/faa_di_bruno.h"
#include "../core/omega.h"
#include "elementary.cuh"
#include "launch.cuh"

namespace ntkfast::cuda {

// σ₀ … σ₃ at z₀, and what a stash keeps of z₀; Stashed: z0 is what it kept. The activation is looked up a neuron at a
// time, the same for all threads of a block: a kernel then holds its epilogue once, not once for each activation.
template <class T>
struct NeuronSigma {
  core::Sigma<T> sigma;
  T kept;
};

template <bool Stashed, class T>
__device__ __forceinline__ NeuronSigma<T> sigma_at(core::Activation activation, core::ActivationParams<T> params,
                                                   T z0) {
  NeuronSigma<T> at{};
  core::visit_activation(activation, [&](auto a) {
    constexpr core::Activation A = decltype(a)::value;
    core::Base<T> base{z0, T(0)};
    if constexpr (!(Stashed && core::kStashesBase<A>)) base = core::base<A, Elementary>(z0, params);
    at = {core::sigma<A>(z0, base, params), core::kStashesBase<A> ? base.a : z0};
  });
  return at;
}

// The stash goes first: h may stand where z does, and so may the stash.
template <class T, class Z, class Keep, class H>
__device__ __forceinline__ void push_neuron(core::Activation activation, core::ActivationParams<T> params, int F, int M,
                                            const T* omega, const Z& z, const Keep& keep, const H& h) {
  const NeuronSigma<T> at = sigma_at<false>(activation, params, z(0));
  keep(0, at.kept);
  for (int c = 1; c < 1 + F + M; ++c) keep(c, z(c));
  core::push_forward(at.sigma, F, M, z, h, [&](int m, int k) { return omega[m * F + k]; });
}

// A component's channels by the numbers of its group: 0, F directions, M collapsed.
struct ChannelMap {
  const uint16_t* channel;
  int directions, collapsed, group_directions;

  // Where ω of collapsed channel m and direction k stands among the group's.
  __device__ __forceinline__ int omega(int m, int k) const {
    return core::omega_place(channel, directions, group_directions, m, k);
  }
};

// stash(c) counts channels as the group does, g and zbar as the component; zbar may stand where g does.
template <class T, class Stash, class G, class ZBar>
__device__ __forceinline__ void pull_neuron(core::Activation activation, core::ActivationParams<T> params,
                                            const ChannelMap& map, const T* omega, const Stash& stash, const G& g,
                                            const ZBar& zbar) {
  core::pull_back(
      sigma_at<true>(activation, params, stash(0)).sigma, map.directions, map.collapsed,
      [&](int c) { return stash(map.channel[c]); }, g, zbar, [&](int m, int k) { return omega[map.omega(m, k)]; });
}

}  // namespace ntkfast::cuda
