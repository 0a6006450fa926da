// One structured layer's part of K, for a strip of rows x against a panel of rows y:
//
//   Σ_ce (w² A⁽ᶜ⁾A'⁽ᵉ⁾ᵀ + b² [c = e = 0]) ∘ D⁽ᶜ⁾D'⁽ᵉ⁾ᵀ
//
// A term and its mirror image, (c, e) and (e, c), go into sums of their own, which are added to each other last: the
// total is then the same, bit for bit, with x and y exchanged. In a block on the diagonal of a symmetric K one of the
// two sums is the other one's transpose.
#pragma once

#include "digit_pipeline.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// ---- the panel

// Memory of one channel of a panel, in elements.
template <class T>
int64_t channel_size(int64_t K) {
  return on_digits<T>(K) ? kPanel<T> / kDigitRows * block_size<T>(K) : kPanel<T> * K;
}

// Up to kPanel rows of one channel.
template <class T>
void pack_channel(const T* rows, int64_t count, int64_t K, T* packed) {
  if constexpr (kHasDigits<T>) {
    if (on_digits<T>(K)) {
      for (int64_t j = 0; j < count; j += kDigitRows)
        split_digits(rows + j * K, K, count - j, K, true, packed + j / kDigitRows * block_size<T>(K));
      return;
    }
  }
  by_vectors::pack_rows(rows, K, count, K, T(1), packed);
}

// ---- the strip

// Numbers of one strip, (kStripRows, kPanel) each: the sums over c < e and c > e, and the factor that a product is
// multiplied with. Two of those in turn: while a term's second product is pending, its factor is wanted, and vectors
// may write that of the next term. Units are finished in order, so that two will do.
template <class T>
struct StripNumbers {
  alignas(64) T above[kStrip<T>], below[kStrip<T>], factor[2][kStrip<T>];
  T* total;
};

// Rows that are wanted soon, as bytes: so many for each row of the product that they are fetched beside.
struct Upcoming {
  const char* data;
  int64_t each;
};

// A product by vectors goes to its destination from the registers.
template <class T, bool adds>
struct DestinationRows {
  Destination<T> to;
  Upcoming upcoming;

  Vec<T> start(int64_t, int) const { return Vec<T>{}; }
  void beside(int64_t k, int rows) const {
    if (k * kCacheLine < rows * upcoming.each) prefetch(upcoming.data + k * kCacheLine);
  }
  void finish(int64_t r, int v, Vec<T> sum) const { to.template take<adds>(r * kPanel<T> + v * kLanes<T>, sum); }
  DestinationRows below(int64_t rows) const {
    return {to.from(rows * kPanel<T>), {upcoming.data + rows * upcoming.each, upcoming.each}};
  }
};

// A strip of x against a panel of y.
template <class T>
struct StripPair {
  const LeftSide<T>& x;
  const Side<T>& y;
  int x_part, y_part;
  int64_t x_first, x_count, y_first, y_count;
  T *packed_a, *packed_d;  // channels of the panel of y
};

template <class T>
class StripLayer {
 public:
  StripLayer(const Layer<T>& layer, int l, const StripPair<T>& pair, StripNumbers<T>& numbers,
             DigitPipeline<T>& pipeline)
      : layer_(layer), l_(l), pair_(pair), numbers_(numbers), pipeline_(pipeline) {}

  // `diagonal`: x and y are the same rows. A bias alone asks for the value channels, and products of others may be
  // infinite.
  void add(int x_channels, int y_channels, bool diagonal) {
    if (layer_.weight_jacobian == T(0)) x_channels = y_channels = 1;
    const int channels = x_channels > y_channels ? x_channels : y_channels;
    const int64_t size = pair_.x_count * kPanel<T>;
    for (int64_t i = 0; channels > 1 && i < size; ++i) numbers_.above[i] = numbers_.below[i] = T(0);
    for (int high = 0; high < channels; ++high)
      for (int low = 0; low <= high; ++low) {
        if (low < x_channels && high < y_channels) add_term(low, high, low == high ? numbers_.total : numbers_.above);
        if (!diagonal && low != high && high < x_channels && low < y_channels) add_term(high, low, numbers_.below);
      }
    pipeline_.flush();
    if (diagonal && channels > 1) transpose_above();
    for (int64_t i = 0; channels > 1 && i < size; ++i) numbers_.total[i] += numbers_.above[i] + numbers_.below[i];
  }

 private:
  void transpose_above() {
    for (int64_t r = 0; r < pair_.x_count; ++r)
      for (int64_t j = 0; j < pair_.x_count; ++j) numbers_.below[r * kPanel<T> + j] = numbers_.above[j * kPanel<T> + r];
  }

  void add_term(int c, int e, T* sum) {
    const Rows<T> xa = pair_.x.A(l_, pair_.x_part, c), xd = pair_.x.D(l_, pair_.x_part, c);
    const Rows<T> ya = y_rows(pair_.y.A(l_, pair_.y_part, e), layer_.n_in, pair_.packed_a, e),
                  yd = y_rows(pair_.y.D(l_, pair_.y_part, e), layer_.n_out, pair_.packed_d, e);
    share_ = e;
    const T weight = layer_.weight_jacobian * layer_.weight_jacobian;
    const T bias = c == 0 && e == 0 ? layer_.bias_jacobian * layer_.bias_jacobian : T(0);
    const bool a_digits = weight != T(0) && on_digits<T>(layer_.n_in), d_digits = on_digits<T>(layer_.n_out);
    if (!a_digits || !d_digits) turn_ = 1 - turn_;
    T* factor = numbers_.factor[turn_];
    if (a_digits && !d_digits) {  // what goes on tiles comes last, so that it need not be waited for
      multiply(xd, yd, {factor});
      for (int64_t i = 0; bias != T(0) && i < pair_.x_count * kPanel<T>; ++i) sum[i] += bias * factor[i];
      multiply(xa, ya, {sum, factor, weight});
      return;
    }
    if (weight != T(0)) multiply(xa, ya, {factor});
    else  // inputs may be infinite where the weight takes no part
      for (int64_t i = 0; i < kStrip<T>; ++i) factor[i] = T(0);
    multiply(xd, yd, {sum, factor, weight, bias});
  }

  Rows<T> y_rows(const T* data, int64_t K, T* packed, int e) const {
    return {data + pair_.y_first * K, K, packed + e * channel_size<T>(K)};
  }

  void multiply(const Rows<T>& x, const Rows<T>& y, const Destination<T>& destination) const {
    if constexpr (kHasDigits<T>)
      if (on_digits<T>(x.depth))
        return pipeline_.multiply(x, pair_.x_first, pair_.x_count, y, pair_.y_count, destination);
    destination.inputs != nullptr ? multiply_by_vectors<true>(x, y, destination)
                                  : multiply_by_vectors<false>(x, y, destination);
  }

  template <bool adds>
  void multiply_by_vectors(const Rows<T>& x, const Rows<T>& y, const Destination<T>& destination) const {
    const T* rows = x.data + pair_.x_first * x.depth;
    by_vectors::panel_product<false>(pair_.x_count, rows, x.depth, y.packed, kPanel<T>, x.depth,
                                     DestinationRows<T, adds>{destination, upcoming(x)});
  }

  // The next strip's rows come from L3, too late if its products had to ask for them: a share of them beside each
  // product that these rows are in.
  Upcoming upcoming(const Rows<T>& x) const {
    const int64_t next = pair_.x_first + pair_.x_count;
    if (next + pair_.x_count > pair_.x.points(pair_.x_part)) return {nullptr, 0};
    const int64_t each = x.depth * static_cast<int64_t>(sizeof(T)) / pair_.y.component_of(pair_.y_part).channels;
    return {reinterpret_cast<const char*>(x.data + next * x.depth) + share_ * pair_.x_count * each, each};
  }

  const Layer<T>& layer_;
  int l_;
  const StripPair<T>& pair_;
  StripNumbers<T>& numbers_;
  DigitPipeline<T>& pipeline_;
  int turn_ = 0, share_ = 0;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
