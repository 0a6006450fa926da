// The product of rows in digits, on the matrix tiles.
//
//   Σ_k x_k x'_k = 2^(e+e') Σ_s 256^(S−1−s) Σ_{d+d'=s} Σ_k q_dk q'_d'k
//
// The sums over k are whole numbers, and exact. Those with s ≥ S are left out. What is left out has random signs:
// together with the rounding of the operands a few times 2⁻²³ ‖x‖ ‖x'‖ for floats, 2⁻⁵³ for doubles; some twenty times
// that where one number of a row dwarfs all others; and, at worst, where all others are one and the same number too,
// depth · 2⁻²³ or 2⁻⁵³ of the largest product. All of it is relative to the norms: a sum that is small only because
// large numbers met zeros may be lost, where a chain of multiply-adds would have it.
//
// x and x' may change places, and rows may be cut as one likes, without changing a bit.
//
// What bounds it. A product of tiles begins every 16 cycles and takes 52, so that three others should stand between two
// that add to the same sum, and mostly do. Few tiles can be under way: one that waits for L2, or is stored before its
// last product is done, holds up all others. While tiles multiply, vectors of numbers have one port instead of two.
#pragma once

#include <iterator>
#include <type_traits>

#include "digits.h"

#if NTKFAST_AMX

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// A product of digit `left` of a block of rows x and digit sum − left of the rows y.
struct DigitPair {
  int sum, left, block;
};

// Order of the products, those of the late sums (from kLate on) last, and which tiles take part.
template <class T>
struct DigitPlan;

// Two blocks of rows, all sums at once.
template <>
struct DigitPlan<float> {
  static constexpr int kBlocks = 2, kLate = 12, kAsides = 12, kLeftTile = 6;
  static constexpr DigitPair kOrder[] = {{1, 1, 0}, {1, 1, 1}, {2, 2, 1}, {2, 2, 0}, {0, 0, 0}, {0, 0, 1},
                                         {2, 1, 1}, {2, 1, 0}, {1, 0, 0}, {1, 0, 1}, {2, 0, 1}, {2, 0, 0}};
  static constexpr int sum_tile(DigitPair p) { return 2 * p.sum + p.block; }
  static constexpr int right_tile(int) { return 7; }
};

// One block. Sums 3 … 6 come first, the others in their tiles. A left digit goes with all its right ones at once. The
// next left digit needs them too, but for the first, and one more: three tiles hold them.
template <>
struct DigitPlan<double> {
  static constexpr int kBlocks = 1, kLate = 22, kAsides = 16, kLeftTile = 7;
  static constexpr DigitPair kOrder[] = {{6, 0, 0}, {5, 0, 0}, {4, 0, 0}, {3, 0, 0}, {6, 1, 0}, {5, 1, 0}, {4, 1, 0},
                                         {3, 1, 0}, {6, 2, 0}, {5, 2, 0}, {4, 2, 0}, {3, 2, 0}, {6, 3, 0}, {5, 3, 0},
                                         {4, 3, 0}, {3, 3, 0}, {6, 4, 0}, {5, 4, 0}, {4, 4, 0}, {6, 5, 0}, {5, 5, 0},
                                         {6, 6, 0}, {2, 0, 0}, {1, 0, 0}, {0, 0, 0}, {2, 1, 0}, {1, 1, 0}, {2, 2, 0}};
  static constexpr int sum_tile(DigitPair p) { return p.sum >= 3 ? 6 - p.sum : p.sum + 1; }
  static constexpr int right_tile(int digit) { return 4 + digit % 3; }
};

// Rows and columns of a unit of products.
template <class T>
constexpr int64_t kUnitRows = DigitPlan<T>::kBlocks * kDigitRows;
constexpr int64_t kUnitColumns = kDigitRows;

// k blocks that one unit goes through before the next has its turn: what both read stays in L1 for so long.
template <class T>
constexpr int64_t kTurn = sizeof(T) == 4 ? 8 : 4;

// Left blocks (the same twice, if there is one) and a right one, from some k on.
template <class T>
struct DigitOperands {
  const std::int8_t *left, *next, *right;  // tiles
  int64_t k_blocks;

  DigitOperands at(int64_t k) const {
    const int64_t tiles = k * kDigits<T> * kDigitTile;
    return {left + tiles, next + tiles, right + tiles, k_blocks - k};
  }
};

template <class T>
class DigitUnit {
  using Plan = DigitPlan<T>;
  static constexpr int kPairs = int(std::size(Plan::kOrder)), kLate = Plan::kLate;

 public:
  static constexpr int64_t kSize = kUnitRows<T> * kUnitColumns;  // of each sum

  // sums (S, kUnitRows, kUnitColumns) = more ? sums : 0, + those of the operands. aside(0 … kAsides − 1) is called
  // while the first k block is at work, or the first two.
  template <class Aside>
  NTKFAST_INLINE static void sum(const DigitOperands<T>& p, bool more, std::int32_t* sums, const Aside& aside) {
    const int64_t last = p.k_blocks - 1;
    if (last == 0) return add<0, kPairs, kStartEarly | kStartLate | kStoreEarly | kStoreLate>(p, more, sums, aside);
    const auto nothing = [](auto) {};
    add<0, kLate, kStartEarly>(p, more, sums, [&](auto share) NTKFAST_INLINE_LAMBDA {
      every_second<share, 0>(aside);
      fetch<share>(p.at(1));
    });
    const auto rest = [&](auto share) NTKFAST_INLINE_LAMBDA { every_second<share, Plan::kAsides / 2>(aside); };
    if (last == 1) {
      add<0, kPairs, kStartLate | kStoreEarly>(p.at(1), more, sums, rest);
    } else {
      add<0, kLate, 0>(p.at(1), more, sums, [&](auto share) NTKFAST_INLINE_LAMBDA {
        rest(share);
        fetch<share>(p.at(2));
      });
      for (int64_t k = 2; k < last; ++k)
        add<0, kLate, 0>(p.at(k), more, sums, [&](auto share) NTKFAST_INLINE_LAMBDA { fetch<share>(p.at(k + 1)); });
      add<0, kPairs, kStartLate | kStoreEarly>(p.at(last), more, sums, nothing);
    }
    if constexpr (kLate < kPairs) {
      for (int64_t k = 1; k < last; ++k) add<kLate, kPairs, 0>(p.at(k), more, sums, nothing);
      add<kLate, kPairs, kStoreLate>(p, more, sums, nothing);
    }
  }

 private:
  // What becomes of sums in a run through products of one k block.
  enum Steps { kStartEarly = 1, kStartLate = 2, kStoreEarly = 4, kStoreLate = 8 };
  static constexpr int kStoreDelay = 3;  // products between the last of a sum and its way to memory

  static constexpr DigitPair pair(int i) { return Plan::kOrder[i]; }
  static constexpr int right_digit(int i) { return pair(i).sum - pair(i).left; }
  static constexpr bool same_sum(int i, int j) { return pair(i).sum == pair(j).sum && pair(i).block == pair(j).block; }

  static constexpr bool is_first(int i) {
    for (int j = 0; j < i; ++j)
      if (same_sum(i, j)) return false;
    return true;
  }
  static constexpr bool is_last(int i) {
    for (int j = i + 1; j < kPairs; ++j)
      if (same_sum(i, j)) return false;
    return true;
  }
  static constexpr bool holds_left(int i, int begin) {
    return i > begin && pair(i - 1).left == pair(i).left && pair(i - 1).block == pair(i).block;
  }
  static constexpr bool holds_right(int i, int begin) {
    for (int j = i - 1; j >= begin; --j)
      if (Plan::right_tile(right_digit(j)) == Plan::right_tile(right_digit(i))) return right_digit(j) == right_digit(i);
    return false;
  }

  static std::int32_t* place(int i, std::int32_t* sums) {
    return sums + pair(i).sum * kSize + pair(i).block * kDigitRows * kUnitColumns;
  }

  template <int share, int first, class Aside>
  NTKFAST_INLINE static void every_second(const Aside& aside) {
    if constexpr (share % 2 == 1) aside(std::integral_constant<int, first + share / 2>{});
  }

  // A share of a k block's lines, on their way from L2 to L1.
  template <int share>
  NTKFAST_INLINE static void fetch(const DigitOperands<T>& p) {
    constexpr int kLines = kDigits<T> * int(kDigitTile) / 64;
    constexpr int from = share * kLines / Plan::kAsides, to = (share + 1) * kLines / Plan::kAsides;
#pragma GCC unroll 16
    for (int line = from; line < to; ++line) {
      __builtin_prefetch(p.left + 64 * line);
      if constexpr (Plan::kBlocks == 2) __builtin_prefetch(p.next + 64 * line);
      __builtin_prefetch(p.right + 64 * line);
    }
  }

  template <int i, int steps>
  NTKFAST_INLINE static void start(bool more, std::int32_t* sums) {
    if constexpr (is_first(i) && (steps & (i < kLate ? kStartEarly : kStartLate)) != 0) {
      if (more) load_tile<Plan::sum_tile(pair(i))>(place(i, sums), 4 * kUnitColumns);
      else clear_tile<Plan::sum_tile(pair(i))>();
    }
  }
  template <int i, int end, int steps>
  NTKFAST_INLINE static void store(std::int32_t* sums) {
    if constexpr (i >= 0 && i < end) {
      if constexpr (is_last(i) && (steps & (i < kLate ? kStoreEarly : kStoreLate)) != 0)
        store_tile<Plan::sum_tile(pair(i))>(place(i, sums), 4 * kUnitColumns);
    }
  }

  // The products begin … end − 1 of one k block, from i on.
  template <int begin, int end, int steps, int i = begin, class Aside>
  NTKFAST_INLINE static void add(const DigitOperands<T>& p, bool more, std::int32_t* sums, const Aside& aside) {
    if constexpr (i < end) {
      constexpr int right = Plan::right_tile(right_digit(i)), at = i - begin;
      start<i, steps>(more, sums);
      if constexpr (!holds_left(i, begin))
        load_tile<Plan::kLeftTile>((pair(i).block ? p.next : p.left) + pair(i).left * kDigitTile, 64);
      if constexpr (!holds_right(i, begin)) load_tile<right>(p.right + right_digit(i) * kDigitTile, 64);
      dot_bytes<Plan::sum_tile(pair(i)), Plan::kLeftTile, right>();
      constexpr int share = at * Plan::kAsides / (end - begin);
      if constexpr (share != (at + 1) * Plan::kAsides / (end - begin)) aside(std::integral_constant<int, share>{});
      store<i - kStoreDelay, end, steps>(sums);
      add<begin, end, steps, i + 1>(p, more, sums, aside);
    } else if constexpr (i < end + kStoreDelay) {
      store<i - kStoreDelay, end, steps>(sums);
      add<begin, end, steps, i + 1>(p, more, sums, aside);
    }
  }
};

NTKFAST_INLINE Vec<float> whole_numbers(const std::int32_t* p, float) {
  return (Vec<float>)_mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}
NTKFAST_INLINE Vec<double> whole_numbers(const std::int32_t* p, double) {
  return (Vec<double>)_mm512_cvtepi32_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// A vector of products from their sums and exponents e + e'.
template <class T>
NTKFAST_INLINE Vec<T> product_of(const std::int32_t* sums, Vec<T> exponents) {
  Vec<T> v = whole_numbers(sums, T(0));
#pragma GCC unroll 6
  for (int s = 1; s < kDigits<T>; ++s) v = fma<Vec<T>>(v, T(256), whole_numbers(sums + s * DigitUnit<T>::kSize, T(0)));
  return scaled(v, exponents);
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast

#endif
