// The product of rows in digits over whole matrices, with C linkage, for test_digits.py.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "../workspace.h"
#include "digit_pipeline.h"

using namespace ntkfast::NTKFAST_ISA;

namespace ntkfast {

void* take_memory(std::size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
void give_back_memory(void* memory, std::size_t) { std::free(memory); }

}  // namespace ntkfast

namespace {

// Blocks of 16 rows of a (rows, K).
template <class T>
Rows<T> in_digits(const T* a, std::int64_t rows, std::int64_t K, bool right, T* memory) {
  for (std::int64_t r = 0; r < rows; r += kDigitRows)
    split_digits(a + r * K, K, rows - r, K, right, memory + r / kDigitRows * block_size<T>(K));
  return {a, K, memory};
}

// C (M, N) = a bᵀ for a (M, K), b (N, K).
template <class T>
void multiply(std::int64_t M, std::int64_t N, std::int64_t K, const T* a, const T* b, T* c) {
  const MatrixTiles tiles;
  const Buffer<T> left(ceil_div(M, kDigitRows) * block_size<T>(K)), right(ceil_div(N, kDigitRows) * block_size<T>(K));
  const Rows<T> x = in_digits(a, M, K, false, left.get()), y = in_digits(b, N, K, true, right.get());
  alignas(64) T products[kStrip<T>];
  DigitPipeline<T> pipeline;
  for (std::int64_t r = 0; r < M; r += kStripRows)
    for (std::int64_t j = 0; j < N; j += kPanel<T>) {
      const std::int64_t rows = std::min(kStripRows, M - r), columns = std::min(std::int64_t(kPanel<T>), N - j);
      const Rows<T> panel{b + j * K, K, y.packed + j / kDigitRows * block_size<T>(K)};
      pipeline.multiply(x, r, rows, panel, columns, {products});
      pipeline.flush();
      for (std::int64_t i = 0; i < rows; ++i)
        std::memcpy(c + (r + i) * N + j, products + i * kPanel<T>, columns * sizeof(T));
    }
}

}  // namespace

extern "C" bool lends_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#define NTKFAST_EXPORT(T) \
  extern "C" void multiply_##T(long M, long N, long K, const T* a, const T* b, T* c) { multiply<T>(M, N, K, a, b, c); }

NTKFAST_EXPORT(float)
NTKFAST_EXPORT(double)
