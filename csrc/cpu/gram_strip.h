// One structured layer's part of K, for a strip of rows x against a panel of rows y:
//
//   Σ_ce (w² A⁽ᶜ⁾A'⁽ᵉ⁾ᵀ + b² [c = e = 0]) ∘ D⁽ᶜ⁾D'⁽ᵉ⁾ᵀ
//
// Products of digits go 16 columns at a time, and the vectors finish one of them (numbers from its sums, the Hadamard
// product) while the tiles work on the next.
#pragma once

#include "digit_product.h"
#include "gram_sides.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Rows of a strip, and the columns of a panel that are taken together.
template <class T>
constexpr int64_t kStripRows = kHasDigits<T> ? 2 * kDigitRows : kTileRows;
template <class T>
constexpr int64_t kHalf = kHasDigits<T> ? kDigitRows : int64_t(kPanel<T>);
template <class T>
constexpr int64_t kStrip = kStripRows<T> * kPanel<T>;

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

// Where the Hadamard product of one term goes, t: term = t, total += t, or total += term + t.
enum class Into { term, total, both };

// Numbers of one strip, (kStripRows, kPanel) each.
template <class T>
struct StripNumbers {
  alignas(64) T inputs[kStrip<T>], cotangents[kStrip<T>], term[kStrip<T>];
  T* total;
};

// (w² inputs + b²) ∘ cotangents, for rows from … to − 1 of kHalf columns.
template <class T>
struct Hadamard {
  T weight, bias;
  Into into;
  int64_t column;  // the first

  void operator()(StripNumbers<T>& p, int64_t from, int64_t to) const {
    for (int64_t r = from; r < to; ++r)
      for (int64_t j = column; j < column + kHalf<T>; j += kLanes<T>) {
        const int64_t at = r * kPanel<T> + j;
        const Vec<T> t = (weight * load<T>(p.inputs + at) + bias) * load<T>(p.cotangents + at);
        if (into == Into::term) store<T>(p.term + at, t);
        else if (into == Into::total) store<T>(p.total + at, load<T>(p.total + at) + t);
        else store<T>(p.total + at, load<T>(p.total + at) + (load<T>(p.term + at) + t));
      }
  }
};

#if NTKFAST_AMX
// Products of digits one after the other, each finished beside the next one.
template <class T>
class DigitPipeline {
 public:
  explicit DigitPipeline(StripNumbers<T>& numbers) : numbers_(numbers) {}

  // `to` = rows first … first + count − 1 of x against 16 rows of y, a block; then the Hadamard product, if any.
  void multiply(const Rows<T>& x, int64_t first, int64_t count, const Rows<T>& y, int64_t columns, T* to,
                const Hadamard<T>* then) {
    const int64_t size = block_size<T>(x.depth), k_blocks = ceil_div(x.depth, kDigitDepth);
    const T* block = x.packed + first / kDigitRows * size;
    const T* next = count > kDigitRows ? block + size : block;
    const bool finite = !any_nan(block) && !any_nan(next) && !any_nan(y.packed);
    constexpr int64_t kPiece = kPieceDepth<T> / kDigitDepth;
    for (int64_t k = 0; k < k_blocks; k += kPiece) {
      const int64_t at = k * kDigits<T> * kDigitTile, left = k_blocks - k;
      const DigitOperands piece{block_tiles(block) + at, block_tiles(next) + at, block_tiles(y.packed) + at,
                                left < kPiece ? left : kPiece};
      start(piece, Finish{{block, next}, y.packed, to, count, 0, k > 0, finite && left <= kPiece ? then : nullptr});
    }
    if (finite) return;
    flush();
    by_multiply_adds(x.data + first * x.depth, count, y, columns, block, next, to);
    if (then != nullptr) (*then)(numbers_, 0, count);
  }

  // Finishes the last product. Before, its `to` and what `then` writes are incomplete, and `then` must live.
  void flush() { finish_rows(finish_[turn_], kStripRows<T>); }

 private:
  struct Finish {
    const T *row[2], *column;  // exponents
    T* to;
    int64_t rows = 0, done = 0;
    bool add = false;
    const Hadamard<T>* then = nullptr;
  };

  static bool any_nan(const T* exponents) {
    for (int64_t i = 0; i < kDigitRows; i += kLanes<T>)
      if (any(load<T>(exponents + i) != load<T>(exponents + i))) return true;
    return false;
  }

  void start(const DigitOperands& piece, const Finish& finish) {
    Finish& before = finish_[turn_];
    const int64_t share = ceil_div(before.rows - before.done, digit_steps<T>(piece.k_blocks));
    const int64_t each = share > 4 ? share : 4;
    auto some = [&] { finish_rows(before, each); };
    turn_ = 1 - turn_;
    finish_[turn_] = finish;
    if (finish.rows > kDigitRows) digit_sums<T, 2>(piece, sums_[turn_], Aside(some));
    else digit_sums<T, 1>(piece, sums_[turn_], Aside(some));
    finish_rows(before, kStripRows<T>);
  }

  void finish_rows(Finish& f, int64_t most) {
    const int64_t from = f.done, to = f.rows - from < most ? f.rows : from + most;
    if (from >= to) return;
    const std::int32_t* sums = sums_[&f - finish_];
    for (int64_t r = from; r < to; ++r)
      for (int64_t j = 0; j < kDigitRows; j += kLanes<T>) {
        const Vec<T> exponents = load<T>(f.column + j) + f.row[r / kDigitRows][r % kDigitRows];
        const Vec<T> v = product_of<T>(sums + r * kUnitColumns + j, exponents);
        T* at = f.to + r * kPanel<T> + j;
        store<T>(at, f.add ? load<T>(at) + v : v);
      }
    if (f.then != nullptr) (*f.then)(numbers_, from, to);
    f.done = to;
  }

  // What meets a number that is not finite, anew.
  static void by_multiply_adds(const T* x, int64_t count, const Rows<T>& y, int64_t columns, const T* block,
                               const T* next, T* to) {
    const T* const row[2] = {block, next};
    const int64_t K = y.depth;
    const Buffer<T> panel(kPanel<T> * K), found(kStrip<T>);
    by_vectors::pack_rows(y.data, K, columns, K, T(1), panel.get());
    by_vectors::panel_product<false, false>(count, x, K, panel.get(), columns, K, found.get(), kPanel<T>);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t j = 0; j < columns; ++j) {
        const T exponents = row[r / kDigitRows][r % kDigitRows] + y.packed[j];
        if (exponents != exponents) to[r * kPanel<T> + j] = found.get()[r * kPanel<T> + j];
      }
  }

  StripNumbers<T>& numbers_;
  Finish finish_[2];
  int turn_ = 0;
  alignas(64) std::int32_t sums_[2][kDigits<T> * kUnit];
};
#else
template <class T>
struct DigitPipeline {
  explicit DigitPipeline(StripNumbers<T>&) {}
  void flush() {}
};
#endif

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

  // The terms (c, e) and (e, c) are added to each other first: the sum is then the same, bit for bit, with x and y
  // exchanged. A bias alone asks for the value channels, and products of others may be infinite.
  void add(int x_channels, int y_channels) {
    if (layer_.weight_jacobian == T(0)) x_channels = y_channels = 1;
    for (int high = 0; high < (x_channels > y_channels ? x_channels : y_channels); ++high)
      for (int low = 0; low <= high; ++low) {
        const bool forth = low < x_channels && high < y_channels,
                   back = low != high && high < x_channels && low < y_channels;
        if (forth) add_term(low, high, back ? Into::term : Into::total);
        if (back) add_term(high, low, forth ? Into::both : Into::total);
      }
    pipeline_.flush();
  }

 private:
  void add_term(int c, int e, Into into) {
    const Rows<T> xa = pair_.x.A(l_, pair_.x_part, c), xd = pair_.x.D(l_, pair_.x_part, c);
    const Rows<T> ya = y_rows(pair_.y.A(l_, pair_.y_part, e), layer_.n_in, pair_.packed_a, e),
                  yd = y_rows(pair_.y.D(l_, pair_.y_part, e), layer_.n_out, pair_.packed_d, e);
    const T weight = layer_.weight_jacobian * layer_.weight_jacobian;
    const T bias = c == 0 && e == 0 ? layer_.bias_jacobian * layer_.bias_jacobian : T(0);
    const bool a_digits = weight != T(0) && on_digits<T>(layer_.n_in), d_digits = on_digits<T>(layer_.n_out);
    if (!a_digits || !d_digits) pipeline_.flush();
    if (weight == T(0))  // inputs may be infinite where the weight takes no part
      for (T& input : numbers_.inputs) input = T(0);
    else if (!a_digits) by_vectors_product(xa, ya, numbers_.inputs);
    if (!d_digits) by_vectors_product(xd, yd, numbers_.cotangents);
    for (int64_t column = 0; column < pair_.y_count; column += kHalf<T>) {
      turn_ = 1 - turn_;
      hadamard_[turn_] = {weight, bias, into, column};
      if (a_digits) multiply(xa, ya, numbers_.inputs, nullptr);
      if (d_digits) {
        multiply(xd, yd, numbers_.cotangents, &hadamard_[turn_]);
      } else {
        pipeline_.flush();
        hadamard_[turn_](numbers_, 0, pair_.x_count);
      }
    }
  }

  Rows<T> y_rows(const T* data, int64_t K, T* packed, int e) const {
    return {data + pair_.y_first * K, K, packed + e * channel_size<T>(K)};
  }

  void by_vectors_product(const Rows<T>& x, const Rows<T>& y, T* to) const {
    by_vectors::panel_product<false, false>(pair_.x_count, x.data + pair_.x_first * x.depth, x.depth, y.packed,
                                            kPanel<T>, x.depth, to, kPanel<T>);
  }

  void multiply(const Rows<T>& x, const Rows<T>& y, T* to, const Hadamard<T>* then) {
    const int64_t column = hadamard_[turn_].column, left = pair_.y_count - column;
    const Rows<T> half{y.data + column * y.depth, y.depth, y.packed + column / kDigitRows * block_size<T>(y.depth)};
    if constexpr (kHasDigits<T>)
      pipeline_.multiply(x, pair_.x_first, pair_.x_count, half, left < kHalf<T> ? left : kHalf<T>, to + column, then);
  }

  const Layer<T>& layer_;
  int l_;
  const StripPair<T>& pair_;
  StripNumbers<T>& numbers_;
  DigitPipeline<T>& pipeline_;
  Hadamard<T> hadamard_[2];  // one may be waiting while the next is made
  int turn_ = 0;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
