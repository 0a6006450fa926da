// What a launch takes by value. Descriptions of groups, components and layers travel in the kernel's parameters, so
// that a launch copies nothing to the device and can be captured in a graph; what does not fit one launch is spread
// over several. A single component must fit.
#pragma once

#include "../core/params.h"

namespace ntkfast::cuda {

constexpr int kMaxGroups = 16;          // or components
constexpr int kMaxTableChannels = 160;  // of all components of a launch together
constexpr int kMaxLayers = 8;

// The component with the most channels: above kMaxTableChannels every operation but the forward sweep refuses it.
template <class T>
int most_channels(const Sweep<T>& sweep) {
  int most = 0;
  for (int g = 0; g < sweep.groups; ++g)
    for (int j = 0; j < sweep.group[g].components; ++j) {
      const int channels = sweep.group[g].component[j].channels;
      most = channels > most ? channels : most;
    }
  return most;
}

}  // namespace ntkfast::cuda
