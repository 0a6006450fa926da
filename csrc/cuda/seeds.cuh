// Seeds as a kernel sees them: beside a table of components (parts.cuh), by the numbers of its entries.
#pragma once

#include "parts.cuh"

namespace ntkfast::cuda {

template <class T>
struct Seeds {
  const T* at[kMaxGroups];
  int64_t stride[kMaxGroups][3];  // of channel, point, output
};

template <class T>
Seeds<T> seeds_of(const Sweep<T>& sweep, const Parts<T>& parts) {
  Seeds<T> seeds{};
  int number = 0;
  for (int g = 0; g < sweep.groups; ++g)
    for (int j = 0; j < sweep.group[g].components; ++j, ++number)
      for (int e = 0; e < parts.count; ++e)
        if (parts.part[e].number == number) {
          const Component& component = sweep.group[g].component[j];
          seeds.at[e] = static_cast<const T*>(component.seed);
          for (int axis = 0; axis < 3; ++axis) seeds.stride[e][axis] = component.seed_stride[axis];
        }
  return seeds;
}

}  // namespace ntkfast::cuda
