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

// A tile of 16 × 16 words of four bytes, transposed.
inline void transpose_tile(float* tile) {
  Vec<float> rows[16];
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) rows[r] = load<float>(tile + 16 * r);
  transpose(rows);
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
