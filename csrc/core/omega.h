// ω of a component among its group's (M, F): its collapsed channel m and its direction k, in the group's numbers.
//
// Always inlined: a copy that the linker chose might be that of another instruction-set level.
#pragma once

#include "macros.h"

namespace ntkfast::core {

// `channel`: the component's channels, 0, then its directions, then its collapsed ones.
template <class Number>
[[gnu::always_inline]] NTK_HD int omega_place(const Number* channel, int directions, int group_directions, int m,
                                              int k) {
  return (channel[1 + directions + m] - 1 - group_directions) * group_directions + channel[1 + k] - 1;
}

}  // namespace ntkfast::core
