// The dense product of one instruction-set level over whole matrices, with C linkage, for test_product.py.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "product.h"

using namespace ntkfast::NTKFAST_ISA;

namespace {

// Panels and operands start on cache lines.
template <class T>
T* aligned(std::vector<T>& memory, std::int64_t size) {
  memory.assign(static_cast<std::size_t>(size + 16), T(7));
  return memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64 / sizeof(T);
}

constexpr std::int64_t kBelow = 32;  // rows beyond the last one, to see whether anything is written there

// Whether all is as it was beyond the rows, and beyond the vector that holds the last column.
template <class T>
bool untouched(const T* edge, std::int64_t pitch, std::int64_t rows, std::int64_t width) {
  const std::int64_t written = width > kLanes<T> ? kPanel<T> : kLanes<T>;
  for (std::int64_t r = 0; r < rows + kBelow; ++r)
    for (std::int64_t j = r < rows ? written : 0; j < pitch; ++j)
      if (edge[r * pitch + j] != T(7)) return false;
  return true;
}

// C (M, N) += (or =) a B for a (M, K), or its transpose (K, M); B (K, N), or its transpose (N, K). Panels of C have rows
// longer than a panel; returns whether nothing else was written.
template <class T>
bool multiply(std::int64_t M, std::int64_t N, std::int64_t K, const T* a, const T* b, T* c, bool left_columns,
              bool right_rows, bool accumulate) {
  const MatrixTiles tiles;
  std::vector<T> left_memory, panel_memory, edge_memory;
  const std::int64_t lda = left_columns ? M : K, pitch = kPanel<T> + 16;
  T* split = aligned(left_memory, left_size<T>(M, K));
  const Left<T> left = left_columns ? left_of_columns(a, lda, M, K, split) : Left<T>{a, lda, split};
  if (!left_columns) split_left(left, M, K);
  T* panel = aligned(panel_memory, panel_size<T>(K));
  bool kept = true;
  for (std::int64_t first = 0; first < N; first += kPanel<T>) {
    const std::int64_t width = std::min<std::int64_t>(kPanel<T>, N - first);
    T* edge = aligned(edge_memory, (M + kBelow) * pitch);
    if (right_rows) pack_rows(b + first * K, K, width, K, T(1), panel);
    else
      pack_columns<T>([&](std::int64_t k) { return b + k * N + first; }, width, K, [](std::int64_t) { return T(1); },
                      panel);
    for (std::int64_t r = 0; r < M; ++r) std::memcpy(edge + r * pitch, c + r * N + first, width * sizeof(T));
    if (left_columns) {
      accumulate ? product<true, true>(left, M, panel, width, K, edge, pitch)
                 : product<false, true>(left, M, panel, width, K, edge, pitch);
    } else {
      accumulate ? product<true>(left, M, panel, width, K, edge, pitch)
                 : product<false>(left, M, panel, width, K, edge, pitch);
    }
    kept = kept && untouched(edge, pitch, M, width);
    for (std::int64_t r = 0; r < M; ++r) std::memcpy(c + r * N + first, edge + r * pitch, width * sizeof(T));
  }
  return kept;
}

}  // namespace

extern "C" bool lends_tiles() {
#if NTKFAST_AMX
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return true;
#endif
}

#define NTKFAST_EXPORT(T)                                                                               \
  extern "C" bool multiply_##T(long M, long N, long K, const T* a, const T* b, T* c, bool left_columns, \
                               bool right_rows, bool accumulate) {                                      \
    return multiply<T>(M, N, K, a, b, c, left_columns, right_rows, accumulate);                         \
  }

NTKFAST_EXPORT(float)
NTKFAST_EXPORT(double)
