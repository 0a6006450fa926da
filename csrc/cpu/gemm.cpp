#include "gemm.h"

#include <cstring>

#include "buffer.h"
#include "parallel.h"
#include "tile_product.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
void gemm(const Gemm<T>& p, const Parallel& parallel) {
  const int64_t panels = ceil_div(p.columns, kPanel<T>);
  const Buffer<T> packed(packed_size<T>(p.columns, p.depth));
  for_each_task(parallel, panels, [&](int64_t q, int) {
    pack_columns(p.b, p.columns, p.columns, p.depth, T(1), q, packed.get() + q * kPanel<T> * p.depth);
  });
  constexpr int64_t kRows = 16 * kTileRows;
  const Buffer<T> edge(parallel.threads * kRows * kPanel<T>);  // the last panel may be wider than the matrix
  for_each_task(parallel, ceil_div(p.rows, kRows), [&](int64_t task, int slot) {
    const int64_t first = task * kRows, count = p.rows - first < kRows ? p.rows - first : kRows;
    const T* a = p.a + first * p.depth;
    T* out = p.out + first * p.columns;
    T* narrow = edge.get() + slot * kRows * kPanel<T>;
    for (int64_t q = 0; q < panels; ++q) {
      const T* panel = packed.get() + q * kPanel<T> * p.depth;
      const int64_t column = q * kPanel<T>, width = p.columns - column;
      if (width >= kPanel<T>) {
        panel_product<T>(count, a, p.depth, panel, width, p.depth, out + column, p.columns);
        continue;
      }
      panel_product<T>(count, a, p.depth, panel, width, p.depth, narrow, kPanel<T>);
      for (int64_t r = 0; r < count; ++r)
        std::memcpy(out + r * p.columns + column, narrow + r * kPanel<T>, static_cast<std::size_t>(width) * sizeof(T));
    }
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(gemm, Gemm)
