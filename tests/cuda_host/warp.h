// Warp operations: every thread of the warp offers a value, all of them meet, each reads the value it wants, all meet
// again.
#pragma once

#include <cstdint>
#include <cstring>

#include "block.h"

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  if (mask != 0xffffffffu) cuda_host::fail("a warp operation with a partial mask: only the full mask runs on the host");
  cuda_host::block().wait(cuda_host::block().warp(), "a warp operation");
}

namespace cuda_host {

inline unsigned lane() { return self().number % kWarp; }

// The value that lane `source` of this warp offers; the thread's own where the warp has no such lane.
template <class T>
T exchange(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a lane exchanges at most eight bytes");
  std::vector<uint64_t>& offered = block().exchange;
  const unsigned me = self().number, from = me - lane() + source;
  std::memcpy(&offered[me], &value, sizeof value);
  __syncwarp(mask);
  T result;
  std::memcpy(&result, &offered[from < offered.size() ? from : me], sizeof result);
  __syncwarp(mask);
  return result;
}

// First lane of the running thread's segment of `width` lanes.
inline unsigned segment(int width) { return lane() & ~unsigned(width - 1); }

}  // namespace cuda_host

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return cuda_host::exchange(mask, value, cuda_host::segment(width) + (unsigned(source) & unsigned(width - 1)));
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned offset, int width = 32) {
  const unsigned lane = cuda_host::lane(), source = lane + offset;
  return cuda_host::exchange(mask, value, source < cuda_host::segment(width) + unsigned(width) ? source : lane);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned offset, int width = 32) {
  const unsigned lane = cuda_host::lane();
  return cuda_host::exchange(mask, value, lane >= cuda_host::segment(width) + offset ? lane - offset : lane);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const unsigned lane = cuda_host::lane(), source = lane ^ unsigned(bits);
  return cuda_host::exchange(mask, value, source < cuda_host::segment(width) + unsigned(width) ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned votes = 0;
  for (unsigned l = 0; l < cuda_host::kWarp; ++l) {
    const unsigned mine = cuda_host::lane() == l && predicate != 0;
    votes |= (cuda_host::exchange(mask, mine, l) & 1u) << l;
  }
  return votes;
}
