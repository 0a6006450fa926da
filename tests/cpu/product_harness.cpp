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

// C (M, N) += (or =) a B for a (M, K), or its transpose (K, M); B (K, N), or its transpose (N, K).
template <class T>
void multiply(std::int64_t M, std::int64_t N, std::int64_t K, const T* a, const T* b, T* c, bool left_columns,
              bool right_rows, bool accumulate) {
  const MatrixTiles tiles;
  std::vector<T> left_memory, panel_memory, edge_memory;
  const std::int64_t lda = left_columns ? M : K;
  T* split = aligned(left_memory, left_size<T>(M, K));
  const Left<T> left = left_columns ? left_of_columns(a, lda, M, K, split) : Left<T>{a, lda, split};
  if (!left_columns) split_left(left, M, K);
  T* panel = aligned(panel_memory, panel_size<T>(K));
  T* edge = aligned(edge_memory, (M + 32) * kPanel<T>);
  for (std::int64_t first = 0; first < N; first += kPanel<T>) {
    const std::int64_t width = std::min<std::int64_t>(kPanel<T>, N - first);
    if (right_rows) pack_rows(b + first * K, K, width, K, T(1), panel);
    else
      pack_columns<T>([&](std::int64_t k) { return b + k * N + first; }, width, K, [](std::int64_t) { return T(1); },
                      panel);
    for (std::int64_t r = 0; r < M; ++r) std::memcpy(edge + r * kPanel<T>, c + r * N + first, width * sizeof(T));
    if (left_columns) {
      accumulate ? product<true, true>(left, 0, M, panel, width, K, edge, kPanel<T>)
                 : product<false, true>(left, 0, M, panel, width, K, edge, kPanel<T>);
    } else {
      accumulate ? product<true>(left, 0, M, panel, width, K, edge, kPanel<T>)
                 : product<false>(left, 0, M, panel, width, K, edge, kPanel<T>);
    }
    for (std::int64_t r = 0; r < M; ++r) std::memcpy(c + r * N + first, edge + r * kPanel<T>, width * sizeof(T));
  }
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
  extern "C" void multiply_##T(long M, long N, long K, const T* a, const T* b, T* c, bool left_columns, \
                               bool right_rows, bool accumulate) {                                      \
    multiply<T>(M, N, K, a, b, c, left_columns, right_rows, accumulate);                                \
  }

NTKFAST_EXPORT(float)
NTKFAST_EXPORT(double)
