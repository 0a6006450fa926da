// The rows of a Gram matrix: which points of which components they are, and where their factors stand.
#pragma once

#include "../core/gram.h"
#include "buffer.h"
#include "digits.h"
#include "parallel.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Whether a layer's part of K is computed from products of A and D.
template <class T>
bool is_structured(const Gram<T>& p, int l) {
  return p.x.layer[l].active && !p.use_explicit[l];
}

// A part is a component. Those that are summed together follow one another, and the first stands for all of them where
// `first` is asked for.
template <class T>
struct Side {
  const Sweep<T>& sweep;
  const int together;
  Buffer<int> group, component;  // of each selected component
  Buffer<int> d_channel;         // its first channel of D, among those of the components together
  Buffer<int64_t> row;           // its first component-major row
  int parts = 0;
  int64_t rows = 0;
  int a_channels = 1, d_channels = 1;  // the most of any group, and of any components together

  static int count(const Sweep<T>& sweep) {
    int total = 0;
    for (int g = 0; g < sweep.groups; ++g) total += sweep.group[g].components;
    return total;
  }
  Side(const Sweep<T>& s, int together)
      : sweep(s), together(together), group(count(s)), component(count(s)), d_channel(count(s)), row(count(s) + 1) {
    for (int g = 0; g < s.groups; ++g) {
      if (!s.group[g].selected) continue;
      a_channels = s.group[g].channels > a_channels ? s.group[g].channels : a_channels;
      for (int j = 0; j < s.group[g].components; ++j, ++parts) {
        const int before = j % together == 0 ? 0 : d_channel[parts - 1] + s.group[g].component[j - 1].channels;
        const int after = before + s.group[g].component[j].channels;
        d_channels = after > d_channels ? after : d_channels;
        group[parts] = g;
        component[parts] = j;
        d_channel[parts] = before;
        row[parts] = rows;
        rows += s.group[g].n;
      }
    }
    row[parts] = rows;
  }
  const Group<T>& group_of(int part) const { return sweep.group[group[part]]; }
  const Component& component_of(int part) const { return group_of(part).component[component[part]]; }
  // Whether any of the components together needs a channel of their group.
  bool uses(int first, int channel) const {
    for (int part = first; part < first + together; ++part)
      for (int c = 0; c < component_of(part).channels; ++c)
        if (component_of(part).channel[c] == channel) return true;
    return false;
  }
  // `channel` is one of the group's, c one of the component's.
  const T* A(int l, int part, int channel) const {
    const Group<T>& g = group_of(part);
    return sweep.A[l] + (g.row + channel * g.n) * sweep.layer[l].n_in;
  }
  const T* D(int l, int part, int c) const {
    return sweep.D[l] + (component_of(part).row + c * group_of(part).n) * sweep.layer[l].n_out;
  }
  // Rows of K, the position of point i there, and from one point to the next.
  int64_t entries() const { return rows / together; }
  int64_t index(int first, int64_t i) const {
    return (group_of(first).residual_row + component[first]) / together + i * stride(first);
  }
  int64_t stride(int part) const { return group_of(part).components / together; }
};

// Points first … first + count − 1 of a part: a strip of rows, a panel or a task's columns.
struct PartPoints {
  int part;
  int64_t first, count;
};

// The channels of A that several components of a group need: products of these are worth keeping.
template <class T>
class SharedChannels {
 public:
  explicit SharedChannels(const Sweep<T>& sweep) : first_(sweep.groups + 1), place_(count(sweep)) {
    first_[0] = 0;
    for (int g = 0; g < sweep.groups; ++g) {
      const Group<T>& group = sweep.group[g];
      int* place = place_.get() + first_[g];
      for (int channel = 0; channel < group.channels; ++channel) place[channel] = 0;
      for (int j = 0; j < group.components; ++j)
        for (int c = 0; c < group.component[j].channels; ++c) ++place[group.component[j].channel[c]];
      int shared = 0;
      for (int channel = 0; channel < group.channels; ++channel)
        place[channel] = place[channel] > 1 ? shared++ : kAlone;
      place[group.channels] = shared;
      first_[g + 1] = first_[g] + group.channels + 1;
    }
  }
  static constexpr int kAlone = -1;
  int count_of(int group) const { return place_[first_[group + 1] - 1]; }
  // Which of those a channel is, or kAlone.
  int place_of(int group, int channel) const { return place_[first_[group] + channel]; }

 private:
  static int64_t count(const Sweep<T>& sweep) {
    int64_t total = 0;
    for (int g = 0; g < sweep.groups; ++g) total += sweep.group[g].channels + 1;
    return total;
  }
  Buffer<int64_t> first_;
  Buffer<int> place_;  // of every channel, and how many are shared; group after group
};

// Rows of one channel: as they stand, and packed for a product: in digits where it goes on those.
template <class T>
struct Rows {
  const T* data;
  int64_t depth;  // numbers of a row
  T* packed;      // blocks of kDigitRows rows
};

// All rows of the structured layers. They are turned into digits once, for all panels that they meet. A group's
// channels of A and a component's channels of D take whole blocks of rows each.
template <class T>
class LeftSide {
 public:
  LeftSide(const Gram<T>& p, const Side<T>& x)
      : p_(p),
        x_(x),
        a_block_(x.sweep.groups + 1),
        d_block_(x.parts + 1),
        a_(p.x.layers),
        d_(p.x.layers),
        memory_(lay_out()) {}

  Rows<T> A(int l, int part, int channel) const {
    const int g = x_.group[part];
    const int64_t n_in = p_.x.layer[l].n_in, block = a_block_[g] + channel * blocks(x_.group_of(part).n);
    return {x_.A(l, part, channel), n_in, memory_.get() + a_[l] + block * digit_size(n_in)};
  }
  Rows<T> D(int l, int part, int c) const {
    const int64_t n_out = p_.x.layer[l].n_out, block = d_block_[part] + c * blocks(x_.group_of(part).n);
    return {x_.D(l, part, c), n_out, memory_.get() + d_[l] + block * digit_size(n_out)};
  }

  const Side<T>& side() const { return x_; }

  void split(const Parallel& parallel) const {
    if (!kHasDigits<T>) return;
    for (int part = 0; part < x_.parts; ++part) {
      const int64_t n = x_.group_of(part).n;
      for_each_task(parallel, p_.x.layers * blocks(n), [&](int64_t task, int) {
        const int l = static_cast<int>(task / blocks(n));
        if (!is_structured(p_, l)) return;
        for (int c = 0; c < x_.component_of(part).channels; ++c) {
          split_block(A(l, part, x_.component_of(part).channel[c]), task % blocks(n), n);
          split_block(D(l, part, c), task % blocks(n), n);
        }
      });
    }
  }

 private:
  static int64_t blocks(int64_t n) { return ceil_div(n, kDigitRows); }
  static int64_t digit_size(int64_t K) { return on_digits<T>(K) ? block_size<T>(K) : 0; }

  static void split_block(const Rows<T>& rows, int64_t block, int64_t n) {
    if constexpr (kHasDigits<T>)
      if (on_digits<T>(rows.depth))
        split_digits(rows.data + block * kDigitRows * rows.depth, rows.depth, n - block * kDigitRows, rows.depth, false,
                     rows.packed + block * block_size<T>(rows.depth));
  }

  // Fills the offsets and returns the size of everything.
  int64_t lay_out() {
    a_block_[0] = d_block_[0] = 0;
    for (int g = 0; g < x_.sweep.groups; ++g) {
      const Group<T>& group = x_.sweep.group[g];
      const int64_t channels = group.selected ? group.channels : 0;
      a_block_[g + 1] = a_block_[g] + channels * blocks(group.n);
    }
    for (int part = 0; part < x_.parts; ++part)
      d_block_[part + 1] = d_block_[part] + x_.component_of(part).channels * blocks(x_.group_of(part).n);
    int64_t total = 0;
    for (int l = 0; l < p_.x.layers; ++l) {
      if (!is_structured(p_, l)) continue;
      a_[l] = total;
      d_[l] = total + a_block_[x_.sweep.groups] * digit_size(p_.x.layer[l].n_in);
      total = d_[l] + d_block_[x_.parts] * digit_size(p_.x.layer[l].n_out);
    }
    return total;
  }

  const Gram<T>& p_;
  const Side<T>& x_;
  Buffer<int64_t> a_block_, d_block_, a_, d_;  // first block of each group and part; where each layer's blocks start
  Buffer<T> memory_;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
