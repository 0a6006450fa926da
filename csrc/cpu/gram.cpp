#include "gram.h"

#include "gram_explicit.h"
#include "gram_strip.h"

// A layer's part of K, for a tile of rows of one component against a panel of rows of another:
//
//   structured   Σ_cc' (D⁽ᶜ⁾D'⁽ᶜ'⁾ᵀ) ∘ (A⁽ᶜ⁾A'⁽ᶜ'⁾ᵀ) + D⁽⁰⁾D'⁽⁰⁾ᵀ       two small products in cache, multiplied there
//   explicit     J_l J'_lᵀ with J_l = Σ_c D⁽ᶜ⁾ ⊗ A⁽ᶜ⁾, a chunk of its columns at a time
//
// Inside, rows are component-major (all points of one component stand together), so that a tile has one set of
// channels; K itself is point-major. Explicit layers go first, their columns side by side; the structured ones go on
// from there, all of them for a block of tiles before its sums return to K. A task has a few panels, and each strip of
// rows meets all of them before it leaves L2. The strips of some points follow one another, one for each component, or
// one for all where K is summed over components, in one block where it has room: there the products of the inputs that
// several of them need are made once. Where the columns are more than a chunk, K is passed over once for each chunk. Of
// a symmetric K each panel meets the points from its own first one on, of all components, and what lies below the
// diagonal is written twice.

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Panels of a task.
constexpr int kTaskPanels = 2;
template <class T>
constexpr int64_t kTaskColumns = kTaskPanels * kPanel<T>;

template <class T>
PartPoints columns_of_task(const Side<T>& side, int64_t task) {
  int part = 0;
  for (;; part += side.together) {
    const int64_t tasks = ceil_div(side.group_of(part).n, kTaskColumns<T>);
    if (task < tasks) break;
    task -= tasks;
  }
  const int64_t first = task * kTaskColumns<T>, left = side.group_of(part).n - first;
  return {part, first, left < kTaskColumns<T> ? left : kTaskColumns<T>};
}

template <class T>
int64_t task_count(const Side<T>& side) {
  int64_t total = 0;
  for (int part = 0; part < side.parts; part += side.together)
    total += ceil_div(side.group_of(part).n, kTaskColumns<T>);
  return total;
}

// Runs body(panel, its index) for the panels of a task.
template <class T, class Body>
void for_each_panel(PartPoints task, const Body& body) {
  for (int64_t j = 0; j < ceil_div(task.count, kPanel<T>); ++j) {
    const auto [first, width] = panel_columns<T>(j, task.count);
    body(PartPoints{task.part, task.first + first, width}, j);
  }
}

// Runs body(entry of K, entry of the tile) for `count` of either that stand so far apart.
template <class T, class Body>
void for_each_entry(T* k, int64_t k_stride, T* tile, int64_t tile_stride, int64_t count, const Body& body) {
  if (k_stride == 1 && tile_stride == 1)
    for (int64_t i = 0; i < count; ++i) body(k[i], tile[i]);
  else
    for (int64_t i = 0; i < count; ++i) body(k[i * k_stride], tile[i * tile_stride]);
}

// Runs body(strip) for the strips of x that pair with a task: all of them, or one triangle, which in the task's own
// group is that of points, whatever their components.
template <class T, class Body>
void for_each_strip(const Gram<T>& p, const Side<T>& x, PartPoints task, const Body& body) {
  for (int group = 0; group < x.parts; group += x.group_of(group).components) {
    const int end = group + x.group_of(group).components;
    if (p.symmetric && end <= task.part) continue;
    const int64_t n = x.group_of(group).n;
    int64_t first = p.symmetric && group <= task.part ? task.first / kStripRows * kStripRows : 0;
    for (; first < n; first += kStripRows)
      for (int part = group; part < end; part += x.together)
        body(PartPoints{part, first, n - first < kStripRows ? n - first : kStripRows});
  }
}

// Panels in digits take longer to make, and are made anew for each block.
constexpr int kBlockStrips = NTKFAST_AMX ? 32 : 16;

// Strips of x that meet the panels of a task together: all layers pass over them before K is touched again.
struct Block {
  PartPoints strip[kBlockStrips];
  int size = 0;
};

// Columns of J that stand side by side, (rows, depth) of either side.
template <class T>
struct Chunk {
  const T *jx, *jy;
  int64_t depth;
};

// The work that is done on K between reading and writing it.
template <class T>
class GramPass {
 public:
  GramPass(const Gram<T>& p, const Side<T>& x, const Side<T>& y) : p_(p), x_(x), y_(y), left_(p, x), shared_(p.x) {
    for (int l = 0; l < p.x.layers; ++l) {
      if (!is_structured(p, l)) continue;
      const int64_t a = y.a_channels * channel_size<T>(p.x.layer[l].n_in);
      const int64_t d = y.d_channels * channel_size<T>(p.x.layer[l].n_out);
      a_size_ = a > a_size_ ? a : a_size_;
      d_size_ = d > d_size_ ? d : d_size_;
    }
    for (int part = 0; part < y.parts; ++part) {
      const int c = y.together > 1 ? y.group_of(part).channels : y.component_of(part).channels;
      y_channels_ = c > y_channels_ ? c : y_channels_;
    }
    for (int part = 0; part < x.parts; ++part)
      if (keeps_products(part) && pairs_of_group(part) > pairs_) pairs_ = pairs_of_group(part);
  }

  // K = (first ? 0 : K) + the chunk's product + (last ? all structured layers : 0).
  void run(const Chunk<T>& chunk, bool first, bool last, const Parallel& parallel) const {
    if (last) left_.split(parallel);
    const int64_t sums_size = kTaskPanels * kPanelSums, chunk_size = chunk.depth * kPanel<T>;
    const int64_t panels_size = kTaskPanels * (a_size_ + d_size_);
    const int64_t size = sums_size + chunk_size + panels_size + kTaskPanels * pairs_ * kStrip<T>;
    const Buffer<T> memory(parallel.threads * size);
    const Buffer<bool> known(parallel.threads * kTaskPanels * pairs_);
    for_each_task(parallel, task_count(y_), [&](int64_t index, int slot) {
      const PartPoints task = columns_of_task(y_, index);
      T *sums = memory.get() + slot * size, *packed_a = sums + sums_size + chunk_size;
      const Panels panels{packed_a, packed_a + kTaskPanels * a_size_, packed_a + panels_size,
                          known.get() + slot * kTaskPanels * pairs_};
      Block block;
      const auto complete = [&] {
        for_each_panel<T>(task, [&](PartPoints panel, int64_t j) {
          start_block(panel, block, first, sums + j * kPanelSums);
          if (chunk.depth > 0) add_chunk(panel, block, chunk, sums + sums_size, sums + j * kPanelSums);
        });
        if (last) add_structured(task, block, panels, sums);
        for_each_panel<T>(task, [&](PartPoints panel, int64_t j) {
          for_block(panel, block, sums + j * kPanelSums, [](T& k, T sum) { k = sum; });
          if (last && p_.symmetric) mirror(panel, block, sums + j * kPanelSums);
        });
        block.size = 0;
      };
      for_each_strip(p_, x_, task, [&](const PartPoints& strip) {
        const int strips = x_.group_of(strip.part).components / x_.together;  // of these points
        const bool begins = x_.component[strip.part] == 0;
        if (begins && strips <= kBlockStrips && block.size + strips > kBlockStrips) complete();
        block.strip[block.size++] = strip;
        if (block.size == kBlockStrips) complete();
      });
      if (block.size > 0) complete();
    });
  }

 private:
  static constexpr int64_t kPanelSums = kBlockStrips * kStrip<T>;

  static_assert(kStripRows % kPanel<T> == 0, "a strip that a panel's diagonal crosses contains all of the block there");

  // What the panels of a task are made into for one layer, and their products of A with one strip.
  struct Panels {
    T *a, *d, *products;
    bool* known;
  };

  // Kept products of a panel: with more of them they would leave L2 before they are read again.
  static constexpr int64_t kMostPairs = 64;

  int64_t pairs_of_group(int part) const { return int64_t{shared_.count_of(x_.group[part])} * y_channels_; }
  bool keeps_products(int part) const { return pairs_of_group(part) > 0 && pairs_of_group(part) <= kMostPairs; }

  // Whether the components of a part's group share the products of A. Digits do not: those of an input take less time
  // than vectors, and would have to be waited for.
  bool shares_products(int l, int part) const {
    const Layer<T>& layer = p_.x.layer[l];
    const bool digits = on_digits<T>(layer.n_in) || on_digits<T>(layer.n_out);
    return keeps_products(part) && layer.weight_jacobian != T(0) && !digits;
  }

  // Whether x and y are rows of one group, and of one component.
  bool same_group(PartPoints panel, const PartPoints& strip) const {
    return p_.symmetric && x_.group[strip.part] == x_.group[panel.part];
  }
  bool same_part(PartPoints panel, const PartPoints& strip) const { return p_.symmetric && strip.part == panel.part; }

  // The first row of a strip that meets a panel, past its end if none does: of a symmetric K, from the panel's own
  // points on, or from the next ones on for components before its own, whose panels have met it.
  int64_t first_row(PartPoints panel, const PartPoints& strip) const {
    if (!same_group(panel, strip)) return 0;
    const int64_t row = panel.first + (strip.part < panel.part ? panel.count : 0) - strip.first;
    return row > 0 ? row : 0;
  }

  // The first row of a strip that is written to the other triangle too, for column j of a panel.
  int64_t first_mirrored(PartPoints panel, const PartPoints& strip, int64_t j) const {
    if (!same_part(panel, strip)) return first_row(panel, strip);
    const int64_t below = panel.first + j + 1 - strip.first;
    return below > 0 ? below : 0;
  }

  template <class Body>
  void for_block(PartPoints panel, const Block& block, T* sums, const Body& body) const {
    const int64_t columns = y_.index(panel.part, panel.first), stride = y_.stride(panel.part);
    for (int s = 0; s < block.size; ++s) {
      const PartPoints& strip = block.strip[s];
      for (int64_t r = first_row(panel, strip); r < strip.count; ++r)
        for_each_entry(p_.out + x_.index(strip.part, strip.first + r) * y_.entries() + columns, stride,
                       sums + s * kStrip<T> + r * kPanel<T>, 1, panel.count, body);
    }
  }

  // The other triangle, from what is below the diagonal, and while it is in cache.
  void mirror(PartPoints panel, const Block& block, T* sums) const {
    for (int s = 0; s < block.size; ++s) {
      const PartPoints& strip = block.strip[s];
      const int64_t rows = x_.index(strip.part, strip.first), stride = x_.stride(strip.part);
      for (int64_t j = 0; j < panel.count; ++j) {
        const int64_t r = first_mirrored(panel, strip, j);
        for_each_entry(p_.out + y_.index(panel.part, panel.first + j) * x_.entries() + rows + r * stride, stride,
                       sums + s * kStrip<T> + r * kPanel<T> + j, kPanel<T>, strip.count - r,
                       [](T& k, T sum) { k = sum; });
      }
    }
  }

  // A sum goes on from K itself, so that it has one order whatever the chunk.
  void start_block(PartPoints panel, const Block& block, bool first, T* sums) const {
    for (int64_t i = 0; i < block.size * kStrip<T>; ++i) sums[i] = T(0);
    if (!first) for_block(panel, block, sums, [](T& k, T& sum) { sum = k; });
  }

  void add_chunk(PartPoints panel, const Block& block, const Chunk<T>& chunk, T* packed, T* sums) const {
    const int64_t depth = chunk.depth;
    by_vectors::pack_rows<T>(chunk.jy + (y_.row[panel.part] + panel.first) * depth, depth, panel.count, depth, T(1),
                             packed);
    for (int s = 0; s < block.size; ++s) {
      const PartPoints& strip = block.strip[s];
      const int64_t from = first_row(panel, strip), count = strip.count - from;
      if (count <= 0) continue;
      by_vectors::panel_product<true, false>(count, chunk.jx + (x_.row[strip.part] + strip.first + from) * depth, depth,
                                             packed, kPanel<T>, depth, sums + s * kStrip<T> + from * kPanel<T>,
                                             kPanel<T>);
    }
  }

  void add_structured(PartPoints task, const Block& block, const Panels& panels, T* sums) const {
    StripNumbers<T> numbers;
    DigitPipeline<T> pipeline;
    for (int l = 0; l < p_.x.layers; ++l) {
      if (!is_structured(p_, l)) continue;
      for_each_panel<T>(task, [&](PartPoints panel, int64_t j) { pack_layer(l, panel, panels, j); });
      for (int s = 0; s < block.size; ++s) {
        const PartPoints &strip = block.strip[s], *next = s + 1 < block.size ? &strip + 1 : nullptr;
        const bool shares = shares_products(l, strip.part);
        const bool fresh = s == 0 || !same_points(strip, block.strip[s - 1]);
        for (int64_t i = 0; shares && fresh && i < kTaskPanels * pairs_; ++i) panels.known[i] = false;
        for_each_panel<T>(task, [&](PartPoints panel, int64_t j) {
          const SharedProducts<T> products{shared_, y_channels_, panels.products + j * pairs_ * kStrip<T>,
                                           panels.known + j * pairs_};
          // Rows from … from + count − 1 of the strip.
          const auto add_rows = [&](int64_t from, int64_t count, bool diagonal) {
            StripPair<T> pair{left_, y_, strip, next, strip.first + from, count, panel};
            pair.packed_a = panels.a + j * a_size_;
            pair.packed_d = panels.d + j * d_size_;
            pair.products = shares ? &products : nullptr;
            pair.sums = sums + j * kPanelSums + s * kStrip<T> + from * kPanel<T>;
            StripLayer<T>(p_.x.layer[l], l, pair, numbers, pipeline).add(diagonal);
          };
          int64_t from = first_row(panel, strip);
          if (from >= strip.count) return;
          if (same_part(panel, strip) && strip.first + from == panel.first) {
            add_rows(from, panel.count, true);
            from += panel.count;
          }
          if (from < strip.count) add_rows(from, strip.count - from, false);
        });
      }
    }
  }

  bool same_points(const PartPoints& strip, const PartPoints& other) const {
    return x_.group[strip.part] == x_.group[other.part] && strip.first == other.first;
  }

  // The channels of a panel of y: those of A that its components need, and of D all of theirs.
  void pack_layer(int l, PartPoints panel, const Panels& panels, int64_t j) const {
    const Layer<T>& layer = p_.x.layer[l];
    for (int channel = 0; channel < y_.group_of(panel.part).channels; ++channel)
      if (y_.uses(panel.part, channel))
        pack_channel(y_.A(l, panel.part, channel) + panel.first * layer.n_in, panel.count, layer.n_in,
                     panels.a + j * a_size_ + channel * channel_size<T>(layer.n_in));
    for (int part = panel.part; part < panel.part + y_.together; ++part)
      for (int e = 0; e < y_.component_of(part).channels; ++e)
        pack_channel(y_.D(l, part, e) + panel.first * layer.n_out, panel.count, layer.n_out,
                     panels.d + j * d_size_ + (y_.d_channel[part] + e) * channel_size<T>(layer.n_out));
  }

  const Gram<T>& p_;
  const Side<T>&x_, &y_;
  const LeftSide<T> left_;
  const SharedChannels<T> shared_;
  int y_channels_ = 1;  // of kept products
  int64_t a_size_ = 0, d_size_ = 0, pairs_ = 0;
};

}  // namespace

template <class T>
void gram(const Gram<T>& p, const Parallel& parallel) {
  const Side<T> x(p.x, p.together), y(p.y, p.together);
  const GramPass<T> pass(p, x, y);
  const int64_t columns = explicit_columns(p), most = columns < p.chunk ? columns : p.chunk;
  const Buffer<T> jx(x.rows * most), jy(p.symmetric ? 0 : y.rows * most);
  int64_t from = 0;
  do {
    const int64_t depth = columns - from < most ? columns - from : most;
    fill_jacobian(p, x, from, depth, jx.get(), parallel);
    if (!p.symmetric) fill_jacobian(p, y, from, depth, jy.get(), parallel);
    pass.run(Chunk<T>{jx.get(), p.symmetric ? jx.get() : jy.get(), depth}, from == 0, from + depth == columns,
             parallel);
    from += depth;
  } while (from < columns);
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(gram, Gram)
