#include "gemm.h"

#include <cstring>

#include "buffer.h"
#include "parallel.h"
#include "product.h"

namespace ntkfast {
namespace NTKFAST_ISA {

template <class T>
void gemm(const Gemm<T>& p, const Parallel& parallel) {
  const int64_t panels = ceil_div(p.columns, kPanel<T>), panel_elements = panel_size<T>(p.depth);
  const Buffer<T> packed(panels * panel_elements);
  for_each_task(parallel, panels, [&](int64_t q, int) {
    const Columns columns = panel_columns<T>(q, p.columns);
    pack_columns<T>([&](int64_t k) { return p.b + k * p.columns + columns.first; }, columns.width, p.depth,
                    [](int64_t) { return T(1); }, packed.get() + q * panel_elements);
  });
  constexpr int64_t kRows = kHasTiles<T> ? 192 : 16 * kTileRows;
  const int64_t edge_size = kRows * kPanel<T>, slot_size = edge_size + left_size<T>(kRows, p.depth);
  const Buffer<T> memory(parallel.threads * slot_size);
  for_each_task(parallel, ceil_div(p.rows, kRows), [&](int64_t task, int slot) {
    const int64_t first = task * kRows, count = p.rows - first < kRows ? p.rows - first : kRows;
    T* out = p.out + first * p.columns;
    T* edge = memory.get() + slot * slot_size;  // the last panel may be wider than the matrix
    const Left<T> a{p.a + first * p.depth, p.depth, edge + edge_size};
    split_left(a, count, p.depth);
    for (int64_t q = 0; q < panels; ++q) {
      const T* panel = packed.get() + q * panel_elements;
      const auto [column, width] = panel_columns<T>(q, p.columns);
      if (width == kPanel<T>) {
        product<false>(a, count, panel, width, p.depth, out + column, p.columns);
        continue;
      }
      product<false>(a, count, panel, width, p.depth, edge, kPanel<T>);
      for (int64_t r = 0; r < count; ++r)
        std::memcpy(out + r * p.columns + column, edge + r * kPanel<T>, static_cast<std::size_t>(width) * sizeof(T));
    }
  });
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(gemm, Gemm)
