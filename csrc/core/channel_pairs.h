// Unordered pairs of channels, as symmetric products of them are stored: (c, e) with e ≤ c stands at c(c+1)/2 + e.
//
// Always inlined: a copy that the linker chose might be that of another instruction-set level.
#pragma once

#include "macros.h"

namespace ntkfast::core {

[[gnu::always_inline]] NTK_HD constexpr int pairs_of(int channels) { return channels * (channels + 1) / 2; }

[[gnu::always_inline]] NTK_HD constexpr int place_of(int c, int e) { return c * (c + 1) / 2 + e; }

// How often a sum over ordered pairs counts it.
[[gnu::always_inline]] NTK_HD constexpr double times_of(int c, int e) { return c == e ? 1.0 : 2.0; }

}  // namespace ntkfast::core
