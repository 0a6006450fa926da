// One structured layer's part of K, for a strip of rows x against a panel of rows y:
//
//   Σ_ce (w² A⁽ᶜ⁾A'⁽ᵉ⁾ᵀ + b² [c = e = 0]) ∘ D⁽ᶜ⁾D'⁽ᵉ⁾ᵀ
//
// and where components are summed together, the sum of that over them. Components of a point have their inputs A in
// common: products that several of them need are kept.
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

// The products of A of one strip and one panel that are kept, and which of them are there already: by the strip's
// shared channels, and by the panel's: its component's, or where components are summed together its group's.
template <class T>
struct SharedProducts {
  const SharedChannels<T>& channels;
  int y_channels;
  T* product;  // (shared channels, y_channels) of (kStripRows, kPanel)
  bool* known;
};

// Rows x_first … x_first + x_count − 1 of x, all in one strip, against a panel of y.
template <class T>
struct StripPair {
  const LeftSide<T>& x;
  const Side<T>& y;
  PartPoints strip;
  const PartPoints* next;  // of the block, null at its end
  int64_t x_first, x_count;
  PartPoints panel;
  T* packed_a = nullptr;                        // the panel's channels: of the group
  T* packed_d = nullptr;                        // of the components together
  T* sums = nullptr;                            // (x_count, kPanel), what is added to
  const SharedProducts<T>* products = nullptr;  // null where the strip's components do not share them
};

template <class T>
class StripLayer {
 public:
  StripLayer(const Layer<T>& layer, int l, const StripPair<T>& pair, StripNumbers<T>& numbers,
             DigitPipeline<T>& pipeline)
      : layer_(layer), l_(l), pair_(pair), numbers_(numbers), pipeline_(pipeline) {}

  // `diagonal`: x and y are the same rows.
  void add(bool diagonal) {
    const int together = pair_.y.together;
    int most = 1;
    for (int j = 0; j < together; ++j)
      for (const int channels : {x_channels(j), y_channels(j)}) most = channels > most ? channels : most;
    const int64_t size = pair_.x_count * kPanel<T>;
    for (int64_t i = 0; most > 1 && i < size; ++i) numbers_.above[i] = numbers_.below[i] = T(0);
    for (int j = 0; j < together; ++j) add_component(j, diagonal);
    pipeline_.flush();
    if (diagonal && most > 1) transpose_above();
    for (int64_t i = 0; most > 1 && i < size; ++i) pair_.sums[i] += numbers_.above[i] + numbers_.below[i];
  }

 private:
  // A bias alone asks for the value channels, and products of others may be infinite.
  int asked_of(const Component& component) const { return layer_.weight_jacobian == T(0) ? 1 : component.channels; }
  const Component& x_component(int j) const { return pair_.x.side().component_of(pair_.strip.part + j); }
  const Component& y_component(int j) const { return pair_.y.component_of(pair_.panel.part + j); }
  int x_channels(int j) const { return asked_of(x_component(j)); }
  int y_channels(int j) const { return asked_of(y_component(j)); }

  void add_component(int j, bool diagonal) {
    const int of_x = x_channels(j), of_y = y_channels(j);
    for (int high = 0; high < of_x || high < of_y; ++high)
      for (int low = 0; low <= high; ++low) {
        if (low < of_x && high < of_y) add_term(j, low, high, low == high ? pair_.sums : numbers_.above);
        if (!diagonal && low != high && high < of_x && low < of_y) add_term(j, high, low, numbers_.below);
      }
  }

  void transpose_above() {
    for (int64_t r = 0; r < pair_.x_count; ++r)
      for (int64_t j = 0; j < pair_.x_count; ++j) numbers_.below[r * kPanel<T> + j] = numbers_.above[j * kPanel<T> + r];
  }

  // Channels c of x and e of y of the components j.
  void add_term(int j, int c, int e, T* sum) {
    const int x_channel = x_component(j).channel[c], y_channel = y_component(j).channel[e];
    const int d_channel = pair_.y.d_channel[pair_.panel.part + j] + e;
    const Rows<T> xa = pair_.x.A(l_, pair_.strip.part, x_channel), xd = pair_.x.D(l_, pair_.strip.part + j, c);
    const Rows<T> ya = y_rows(pair_.y.A(l_, pair_.panel.part, y_channel), layer_.n_in, pair_.packed_a, y_channel),
                  yd = y_rows(pair_.y.D(l_, pair_.panel.part + j, e), layer_.n_out, pair_.packed_d, d_channel);
    const T weight = layer_.weight_jacobian * layer_.weight_jacobian;
    const T bias = c == 0 && e == 0 ? layer_.bias_jacobian * layer_.bias_jacobian : T(0);
    const bool a_digits = weight != T(0) && on_digits<T>(layer_.n_in), d_digits = on_digits<T>(layer_.n_out);
    const Upcoming d_next = upcoming_cotangents(c, j, e);
    if (const T* shared = shared_product(xa, ya, x_channel, pair_.y.together == 1 ? e : y_channel)) {
      multiply(xd, yd, {sum, shared, weight, bias}, d_next);
      return;
    }
    if (!a_digits || !d_digits) turn_ = 1 - turn_;
    T* factor = numbers_.factor[turn_];
    const Upcoming a_next = upcoming_inputs(x_channel, j, e);
    if (a_digits && !d_digits) {  // what goes on tiles comes last, so that it need not be waited for
      multiply(xd, yd, {factor}, d_next);
      if (bias != T(0)) pipeline_.flush();  // of components before: an entry has one order wherever it stands
      for (int64_t i = 0; bias != T(0) && i < pair_.x_count * kPanel<T>; ++i) sum[i] += bias * factor[i];
      multiply(xa, ya, {sum, factor, weight}, a_next);
      return;
    }
    if (weight != T(0)) multiply(xa, ya, {factor}, a_next);
    else  // inputs may be infinite where the weight takes no part
      for (int64_t i = 0; i < kStrip<T>; ++i) factor[i] = T(0);
    multiply(xd, yd, {sum, factor, weight, bias}, d_next);
  }

  // From this pair's first row on; made for all rows of the strip, as other components may meet more of them. Null
  // where this component alone needs it.
  const T* shared_product(const Rows<T>& x, const Rows<T>& y, int x_channel, int y_channel) const {
    if (pair_.products == nullptr) return nullptr;
    const SharedProducts<T>& products = *pair_.products;
    const int place = products.channels.place_of(pair_.x.side().group[pair_.strip.part], x_channel);
    if (place == SharedChannels<T>::kAlone) return nullptr;
    const int64_t index = int64_t{place} * products.y_channels + y_channel;
    T* product = products.product + index * kStrip<T>;
    if (!products.known[index]) {
      products.known[index] = true;
      by_vectors::panel_product<false>(pair_.strip.count, x.data + pair_.strip.first * x.depth, x.depth, y.packed,
                                       kPanel<T>, x.depth, DestinationRows<T, false>{{product}, {nullptr, 0}});
    }
    return product + (pair_.x_first - pair_.strip.first) * kPanel<T>;
  }

  Rows<T> y_rows(const T* data, int64_t K, T* packed, int channel) const {
    return {data + pair_.panel.first * K, K, packed + channel * channel_size<T>(K)};
  }

  void multiply(const Rows<T>& x, const Rows<T>& y, const Destination<T>& destination, const Upcoming& next) const {
    if constexpr (kHasDigits<T>)
      if (on_digits<T>(x.depth))
        return pipeline_.multiply(x, pair_.x_first, pair_.x_count, y, pair_.panel.count, destination);
    destination.inputs != nullptr ? multiply_by_vectors<true>(x, y, destination, next)
                                  : multiply_by_vectors<false>(x, y, destination, next);
  }

  template <bool adds>
  void multiply_by_vectors(const Rows<T>& x, const Rows<T>& y, const Destination<T>& destination,
                           const Upcoming& next) const {
    const T* rows = x.data + pair_.x_first * x.depth;
    by_vectors::panel_product<false>(pair_.x_count, rows, x.depth, y.packed, kPanel<T>, x.depth,
                                     DestinationRows<T, adds>{destination, next});
  }

  // The rows of the block's next strip come from L3, too late if its products had to ask for them: a share of them
  // beside each product that these rows are in.
  Upcoming upcoming_inputs(int channel, int j, int e) const {
    if (pair_.next == nullptr || channel >= pair_.x.side().group_of(pair_.next->part).channels) return {nullptr, 0};
    return upcoming(pair_.x.A(l_, pair_.next->part, channel), j, e);
  }
  Upcoming upcoming_cotangents(int c, int j, int e) const {
    if (pair_.next == nullptr || c >= pair_.x.side().component_of(pair_.next->part + j).channels) return {nullptr, 0};
    return upcoming(pair_.x.D(l_, pair_.next->part + j, c), j, e);
  }
  Upcoming upcoming(const Rows<T>& x, int j, int e) const {
    if (pair_.next->count < pair_.x_count) return {nullptr, 0};
    const int64_t each = x.depth * static_cast<int64_t>(sizeof(T)) / y_component(j).channels;
    return {reinterpret_cast<const char*>(x.data + pair_.next->first * x.depth) + e * pair_.x_count * each, each};
  }

  const Layer<T>& layer_;
  int l_;
  const StripPair<T>& pair_;
  StripNumbers<T>& numbers_;
  DigitPipeline<T>& pipeline_;
  int turn_ = 0;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
