// One neuron on the device, all channels of a point: what an activation makes of its pre-activations, and the pull-back
// (core/faa_di_bruno.h). Where the channels stand is the caller's affair: z, stash and g read one, keep, h and zbar
// write one.
#pragma once

#include "../core/activation_jet.h"
#include "../core/faa_di_bruno.h"
#include "elementary.cuh"
#include "launch.cuh"

namespace ntkfast::cuda {

// The stash goes first: h may stand where z does, and so may the stash.
template <core::Activation A, class T, class Z, class Keep, class H>
__device__ __forceinline__ void push_neuron(core::ActivationParams<T> params, int F, int M, const T* omega, const Z& z,
                                            const Keep& keep, const H& h) {
  const T z0 = z(0);
  const core::Base<T> base = core::base<A, Elementary>(z0, params);
  const core::Sigma<T> s = core::sigma<A>(z0, base, params);
  keep(0, core::kStashesBase<A> ? base.a : z0);
  for (int c = 1; c < 1 + F + M; ++c) keep(c, z(c));
  core::push_forward(s, F, M, z, h, [&](int m, int k) { return omega[m * F + k]; });
}

// A component's channels by the numbers of its group: 0, F directions, M collapsed.
struct ChannelMap {
  const uint16_t* channel;
  int directions, collapsed, group_directions;

  // Where ω of collapsed channel m and direction k stands among the group's.
  __device__ __forceinline__ int omega(int m, int k) const {
    return (channel[1 + directions + m] - 1 - group_directions) * group_directions + channel[1 + k] - 1;
  }
};

// stash(c) counts channels as the group does, g and zbar as the component; zbar may stand where g does.
template <core::Activation A, class T, class Stash, class G, class ZBar>
__device__ __forceinline__ void pull_neuron(core::ActivationParams<T> params, const ChannelMap& map, const T* omega,
                                            const Stash& stash, const G& g, const ZBar& zbar) {
  const T z0 = stash(0);
  core::Base<T> base{z0, T(0)};
  if constexpr (!core::kStashesBase<A>) base = core::base<A, Elementary>(z0, params);
  core::pull_back(
      core::sigma<A>(z0, base, params), map.directions, map.collapsed, [&](int c) { return stash(map.channel[c]); }, g,
      zbar, [&](int m, int k) { return omega[map.omega(m, k)]; });
}

}  // namespace ntkfast::cuda
