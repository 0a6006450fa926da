// Seeds as a kernel sees them: beside a table of components (parts.cuh), by the numbers of its entries.
#pragma once

#include "../core/seeds.h"
#include "parts.cuh"

namespace ntkfast::cuda {

template <class T>
struct SeedTable {
  core::Seeds<T> of[kMaxGroups];
};

template <class T>
SeedTable<T> seed_table(const Sweep<T>& sweep, const Parts<T>& parts) {
  SeedTable<T> seeds{};
  int number = 0;
  for (int g = 0; g < sweep.groups; ++g)
    for (int j = 0; j < sweep.group[g].components; ++j, ++number)
      for (int e = 0; e < parts.count; ++e)
        if (parts.part[e].number == number) seeds.of[e] = core::seeds_of<T>(sweep.group[g].component[j], 0);
  return seeds;
}

}  // namespace ntkfast::cuda
