// Products of a strip of rows and a panel of rows, in digits, one after the other: the vectors finish one of them
// (numbers from its sums, a Hadamard product) while the tiles work on the next.
#pragma once

#include "digit_product.h"
#include "gram_sides.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Rows of a strip: whole panels, so that the diagonal of a symmetric K leaves each strip where a panel ends.
constexpr int64_t kStripRows = 2 * kDigitRows;
template <class T>
constexpr int64_t kStrip = kStripRows * kPanel<T>;

// What becomes of a product P, all (kStripRows, kPanel):  to = P, or to += (weight inputs + bias) ∘ P where inputs are
// given.
template <class T>
struct Destination {
  T* to;
  const T* inputs = nullptr;
  T weight = 0, bias = 0;

  Destination from(int64_t at) const { return {to + at, inputs == nullptr ? nullptr : inputs + at, weight, bias}; }

  template <bool adds>
  NTKFAST_INLINE void take(int64_t at, Vec<T> product) const {
    if constexpr (!adds) store<T>(to + at, product);
    else
      store<T>(to + at, fma<Vec<T>>(fma<Vec<T>>(Vec<T>{} + weight, load<T>(inputs + at), Vec<T>{} + bias), product,
                                    load<T>(to + at)));
  }

  // `count` rows.
  void take_all(const T* products, int64_t count) const {
    for (int64_t at = 0; at < count * kPanel<T>; at += kLanes<T>)
      inputs != nullptr ? take<true>(at, load<T>(products + at)) : take<false>(at, load<T>(products + at));
  }
};

#if NTKFAST_AMX
template <class T>
class DigitPipeline {
 public:
  // `count` rows of x from the first on, against `columns` rows of y. What is pending is not in its destination yet.
  void multiply(const Rows<T>& x, int64_t first, int64_t count, const Rows<T>& y, int64_t columns,
                const Destination<T>& destination) {
    const T* const left = x.packed + first / kDigitRows * block_size<T>(x.depth);
    if (all_finite(left, count, x.depth) && all_finite(y.packed, columns, x.depth)) {
      run(left, count, y, columns, destination);
      return;
    }
    run(left, count, y, columns, {found_});
    flush();
    by_multiply_adds(x.data + first * x.depth, left, count, y, columns);
    destination.take_all(found_, count);
  }

  // Finishes what is pending.
  void flush() {
    while (pending_ > 0) take_pending().finish();
  }

 private:
  static constexpr int kUnits = 2;  // of a strip and a panel; as many may be pending
  static_assert(kStripRows * kPanel<T> == kUnits * kUnitRows<T> * kUnitColumns);

  struct Unit {
    alignas(64) std::int32_t sums[kDigits<T> * DigitUnit<T>::kSize];
    const T *block, *next, *column;  // of rows, each after its exponents
    Destination<T> destination;      // of the first number
    bool busy = false;

    template <bool adds>
    NTKFAST_INLINE void finish_row(int r) const {
      const T* exponents = r < kDigitRows ? block : next;  // g++ 12 with UBSan compiles an unnamed one wrongly
      const T row = exponents[r % kDigitRows];
      for (int j = 0; j < kUnitColumns; j += kLanes<T>)
        destination.template take<adds>(r * kPanel<T> + j,
                                        product_of<T>(sums + r * kUnitColumns + j, load<T>(column + j) + row));
    }
    void finish() const {
      const bool adds = destination.inputs != nullptr;
      for (int r = 0; r < kUnitRows<T>; ++r) adds ? finish_row<true>(r) : finish_row<false>(r);
    }
  };

  static bool all_finite(const T* blocks, int64_t rows, int64_t K) {
    for (int64_t r = 0; r < rows; r += kDigitRows, blocks += block_size<T>(K))
      for (int64_t i = 0; i < kDigitRows; i += kLanes<T>)
        if (any(load<T>(blocks + i) != load<T>(blocks + i))) return false;
    return true;
  }

  // The units take turns, so that what they share is read from nearby memory.
  void run(const T* left, int64_t count, const Rows<T>& y, int64_t columns, const Destination<T>& destination) {
    const int64_t size = block_size<T>(y.depth), k_blocks = ceil_div(y.depth, kDigitDepth);
    Unit* units[kUnits];
    for (int64_t k = 0; k < k_blocks; k += kTurn<T>) {
      const int64_t rest = k_blocks - k;
      Unit** unit = units;
      for (int64_t r = 0; r < count; r += kUnitRows<T>)
        for (int64_t j = 0; j < columns; j += kUnitColumns, ++unit) {
          if (k == 0) {
            *unit = &free_unit();
            (*unit)->block = left + r / kDigitRows * size;
            (*unit)->next = count - r > kDigitRows ? (*unit)->block + size : (*unit)->block;
            (*unit)->column = y.packed + j / kDigitRows * size;
            (*unit)->destination = destination.from(r * kPanel<T> + j);
          }
          sum(**unit, k, rest < kTurn<T> ? rest : kTurn<T>);
          if (rest <= kTurn<T>) waiting_[pending_++] = *unit;
        }
    }
  }

  void sum(Unit& unit, int64_t k, int64_t k_blocks) {
    const DigitOperands<T> all{block_tiles(unit.block), block_tiles(unit.next), block_tiles(unit.column), k + k_blocks};
    const DigitOperands<T> operands = all.at(k);
    if (k > 0 || pending_ == 0) DigitUnit<T>::sum(operands, k > 0, unit.sums, [](auto) {});
    else if (waiting_[0]->destination.inputs != nullptr) sum_and_finish<true>(operands, unit.sums);
    else sum_and_finish<false>(operands, unit.sums);
  }

  template <bool adds>
  void sum_and_finish(const DigitOperands<T>& operands, std::int32_t* sums) {
    const Unit& before = take_pending();
    DigitUnit<T>::sum(operands, false, sums, [&](auto share) NTKFAST_INLINE_LAMBDA {
      constexpr int from = share * kUnitRows<T> / DigitPlan<T>::kAsides;
      constexpr int to = (share + 1) * kUnitRows<T> / DigitPlan<T>::kAsides;
#pragma GCC unroll 4
      for (int r = from; r < to; ++r) before.template finish_row<adds>(r);
    });
  }

  // At most kUnits are pending or begun when this is called, so that there is one. The first is preferred: it is in L1.
  Unit& free_unit() {
    int i = 0;
    while (units_[i].busy) ++i;
    units_[i].busy = true;
    return units_[i];
  }

  // The caller finishes it before a unit is taken again.
  const Unit& take_pending() {
    Unit& first = *waiting_[0];
    waiting_[0] = waiting_[1];
    --pending_;
    first.busy = false;
    return first;
  }

  // Computes those entries of found_ anew whose rows have numbers that are not finite.
  void by_multiply_adds(const T* x, const T* left, int64_t count, const Rows<T>& y, int64_t columns) {
    const int64_t K = y.depth, size = block_size<T>(K);
    const Buffer<T> panel(kPanel<T> * K), exact(kStrip<T>);
    by_vectors::pack_rows(y.data, K, columns, K, T(1), panel.get());
    by_vectors::panel_product<false, false>(count, x, K, panel.get(), columns, K, exact.get(), kPanel<T>);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t j = 0; j < columns; ++j) {
        const T exponents =
            left[r / kDigitRows * size + r % kDigitRows] + y.packed[j / kDigitRows * size + j % kDigitRows];
        if (exponents != exponents) found_[r * kPanel<T> + j] = exact[r * kPanel<T> + j];
      }
  }

  Unit units_[kUnits + 1];  // one more than may be pending
  Unit* waiting_[kUnits] = {};
  int pending_ = 0;
  alignas(64) T found_[kStrip<T>];
};
#else
template <class T>
struct DigitPipeline {
  void flush() {}
};
#endif

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
