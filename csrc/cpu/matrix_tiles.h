// The matrix registers of AMX, tmm0 … tmm7: 16 rows of 64 bytes each, for as long as a MatrixTiles lives on the thread.
//
//   dot    C[r, j] += Σ_k A[r, 2k] B[k, 2j] + A[r, 2k+1] B[k, 2j+1]      C: 16 × 16 floats;  A, B: 16 × 32 bfloat16
//          the same in fours                                             C: 16 × 16 int32;   A, B: 16 × 64 int8
//
// Own assembly: the compiler's intrinsics do not say that they touch memory.
#pragma once

#include <cstdint>

#include "vector.h"

#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define NTKFAST_AMX 1
#else
#define NTKFAST_AMX 0
#endif

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// What the vectors do while the tiles multiply: called a few times for each k block of each 32 rows. A reference to a
// callable.
class Aside {
 public:
  Aside() : run_([](void*) {}) {}
  template <class Body>
  explicit Aside(Body& body) : run_([](void* b) { (*static_cast<Body*>(b))(); }), body_(&body) {}
  void operator()() const { run_(body_); }

 private:
  void (*run_)(void*);
  void* body_ = nullptr;
};

#if NTKFAST_AMX
class MatrixTiles {
 public:
  MatrixTiles() {
    struct alignas(64) {
      std::uint8_t palette, start_row, reserved[14];
      std::uint16_t row_bytes[16];
      std::uint8_t rows[16];
    } shape{};
    shape.palette = 1;
    for (int t = 0; t < 8; ++t) shape.row_bytes[t] = 64, shape.rows[t] = 16;
    __asm__ volatile("ldtilecfg %0" : : "m"(shape));
  }
  ~MatrixTiles() { __asm__ volatile("tilerelease"); }
  MatrixTiles(const MatrixTiles&) = delete;
  MatrixTiles& operator=(const MatrixTiles&) = delete;
};

template <int tile>
NTKFAST_INLINE void load_tile(const void* from, int64_t row_bytes) {
  __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(tile), "r"(from), "r"(row_bytes) : "memory");
}

template <int tile>
NTKFAST_INLINE void store_tile(void* to, int64_t row_bytes) {
  __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(tile), "r"(to), "r"(row_bytes) : "memory");
}

template <int tile>
NTKFAST_INLINE void clear_tile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
}

template <int c, int a, int b>
NTKFAST_INLINE void dot_tiles() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
}

template <int c, int a, int b>
NTKFAST_INLINE void dot_bytes() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
}

// A tile of 16 × 16 words of four bytes, transposed: row r and row r + s exchange their parts of s columns, for s = 8, 4,
// 2, 1.
inline void transpose(float* tile) {
  using V = Vec<float>;
  using I = Mask<V>;
  V rows[16];
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) rows[r] = load<float>(tile + 16 * r);
  const auto exchange = [&](auto s, Mask<V> low, Mask<V> high) {
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
      if (r & s) continue;
      const V a = rows[r], b = rows[r + s];
      rows[r] = __builtin_shuffle(a, b, low);
      rows[r + s] = __builtin_shuffle(a, b, high);
    }
  };
  exchange(std::integral_constant<int, 8>{}, I{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
           I{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
  exchange(std::integral_constant<int, 4>{}, I{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
           I{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
  exchange(std::integral_constant<int, 2>{}, I{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
           I{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  exchange(std::integral_constant<int, 1>{}, I{0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
           I{1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) store<float>(tile + 16 * r, rows[r]);
}
#else
struct MatrixTiles {
  MatrixTiles() {}
  ~MatrixTiles() {}  // not trivial, so that a name for one counts as used
};
#endif

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
