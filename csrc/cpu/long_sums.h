// Sums over many rows: in T those of some rows, which then go on to float64.
//
// In float32 alone every ten times as many rows would cost a digit.
#pragma once

#include <cstdint>

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
class LongSums final {
 public:
  // Zeros. `before`: as many numbers, or null where the rows are few.
  LongSums(T* sums, double* before, int64_t count) : sums_(sums), before_(before), count_(count) {
    for (int64_t i = 0; i < count; ++i) sums[i] = T(0);
    for (int64_t i = 0; before != nullptr && i < count; ++i) before[i] = 0;
  }

  // Once some rows have been added.
  void go_on() const {
    if (before_ == nullptr) return;
    for (int64_t i = 0; i < count_; ++i) {
      before_[i] += sums_[i];
      sums_[i] = T(0);
    }
  }

  // Once all of them have.
  void finish() const {
    if (before_ == nullptr) return;
    for (int64_t i = 0; i < count_; ++i) sums_[i] = static_cast<T>(before_[i] + sums_[i]);
  }

 private:
  T* sums_;
  double* before_;
  int64_t count_;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
