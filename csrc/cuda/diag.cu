#include <vector>

#include "diag.h"
#include "factor_diag.h"
#include "jet_backward.h"
#include "jet_forward.h"
#include "launch.cuh"
#include "limits.h"
#include "small_sweep.h"

// A chunk is a sweep of its own, over a range of points of each of some groups. Its diagonal goes straight to its
// place: residual rows count from those of the whole sweep.

namespace ntkfast::cuda {
namespace {

constexpr int64_t kBytes = int64_t(256) << 20;

// What a point of a group adds to the chunk: rows of A, and rows of D.
template <class T>
struct PointRows {
  int64_t stack, cotangent = 0;
  explicit PointRows(const Group<T>& group) : stack(group.channels) {
    for (int j = 0; j < group.components; ++j) cotangent += group.component[j].channels;
  }
  int64_t most() const { return stack > cotangent ? stack : cotangent; }
};

// Elements that one row of a chunk takes of the workspace.
template <class T>
struct Sizes {
  int64_t A = 0, Z = 0, D = 0, out;
  explicit Sizes(const Sweep<T>& sweep) : out(sweep.layer[sweep.layers - 1].n_out) {
    for (int l = 0; l < sweep.layers; ++l) {
      const Layer<T>& layer = sweep.layer[l];
      A += layer.n_in;
      D += layer.n_out;
      Z += layer.keeps_stash ? layer.n_out : 0;
    }
  }
  int64_t row() const { return A + Z + D + out; }
};

template <class T>
int64_t rows_of_chunk(const Sweep<T>& sweep) {
  const int64_t wanted =
      sweep.tile_rows > 0 ? sweep.tile_rows : kBytes / (Sizes<T>(sweep).row() * static_cast<int64_t>(sizeof(T)));
  int64_t least = 1, all = 0;
  for (int g = 0; g < sweep.groups; ++g) {
    const int64_t point = PointRows<T>(sweep.group[g]).most();
    least = point > least ? point : least;
    all += point * sweep.group[g].n;
  }
  const int64_t rows = wanted < all ? wanted : all;
  return rows > least ? rows : least;
}

// One chunk under construction.
template <class T>
class Chunk {
 public:
  Chunk(const Sweep<T>& whole, int64_t rows, T* workspace) : whole_(whole), capacity_(rows) {
    const Sizes<T> sizes(whole);
    const auto take = [&](std::vector<T*>& stacks, int64_t width) {
      stacks.push_back(width > 0 ? workspace : nullptr);
      workspace += rows * width;
    };
    for (int l = 0; l < whole.layers; ++l) take(A_, whole.layer[l].n_in);
    for (int l = 0; l < whole.layers; ++l) take(D_, whole.layer[l].n_out);
    for (int l = 0; l < whole.layers; ++l) take(Z_, whole.layer[l].keeps_stash ? whole.layer[l].n_out : 0);
    out_ = workspace;
    clear();
  }

  // Points of this group that still fit.
  int64_t room(const Group<T>& group) const {
    const PointRows<T> point(group);
    const int64_t a = (capacity_ - sweep_.rows) / point.stack;
    const int64_t d = point.cotangent > 0 ? (capacity_ - sweep_.cotangent_rows) / point.cotangent : a;
    return a < d ? a : d;
  }

  void add(const Group<T>& group, int64_t first, int64_t count) {
    const int64_t d = whole_.layer[0].n_in;
    Group<T> piece = group;
    piece.n = count;
    piece.points = group.points + first * d;
    piece.beta = group.beta + first * group.beta_stride;
    piece.omega = group.omega + first * group.omega_stride;
    piece.row = sweep_.rows;
    piece.residual_row = group.residual_row + first * group.components;
    first_component_.push_back(components_.size());
    for (int j = 0; j < group.components; ++j) {
      Component component = group.component[j];
      component.row = sweep_.cotangent_rows;
      component.seed = static_cast<const T*>(component.seed) + first * component.seed_stride[1];
      sweep_.cotangent_rows += component.channels * count;
      components_.push_back(component);
    }
    sweep_.rows += group.channels * count;
    groups_.push_back(piece);
  }

  int run(void* stream) {
    if (groups_.empty()) return cudaSuccess;
    for (size_t g = 0; g < groups_.size(); ++g) groups_[g].component = components_.data() + first_component_[g];
    sweep_.groups = static_cast<int>(groups_.size());
    sweep_.group = groups_.data();
    sweep_.A = A_.data();
    sweep_.Z = Z_.data();
    sweep_.D = D_.data();
    sweep_.out = out_;
    int code = jet_forward(sweep_, nullptr, stream);
    if (code == cudaSuccess) code = jet_backward(sweep_, stream);
    if (code == cudaSuccess) code = factor_diag(sweep_, stream);
    clear();
    return code;
  }

 private:
  void clear() {
    sweep_ = whole_;
    sweep_.rows = sweep_.cotangent_rows = 0;
    groups_.clear();
    components_.clear();
    first_component_.clear();
  }

  const Sweep<T>& whole_;
  int64_t capacity_;
  Sweep<T> sweep_;
  T* out_;
  std::vector<T*> A_, Z_, D_;
  std::vector<Group<T>> groups_;
  std::vector<Component> components_;
  std::vector<size_t> first_component_;
};

template <class T>
int64_t workspace_of(const Sweep<T>& sweep) {
  return fits_small(sweep, Task::diag) ? 0 : rows_of_chunk(sweep) * Sizes<T>(sweep).row();
}

template <class T>
int run(const Sweep<T>& sweep, T* workspace, void* stream) {
  if (most_channels(sweep) > kMaxTableChannels) return cudaErrorInvalidValue;
  if (fits_small(sweep, Task::diag)) return small_sweep(sweep, Task::diag, stream);
  Chunk<T> chunk(sweep, rows_of_chunk(sweep), workspace);
  for (int g = 0; g < sweep.groups; ++g) {
    const Group<T>& group = sweep.group[g];
    for (int64_t first = 0; first < group.n;) {
      int64_t count = chunk.room(group);
      if (count == 0) {
        const int code = chunk.run(stream);
        if (code != cudaSuccess) return code;
        count = chunk.room(group);
      }
      count = count < group.n - first ? count : group.n - first;
      chunk.add(group, first, count);
      first += count;
    }
  }
  return chunk.run(stream);
}

}  // namespace

int64_t diag_workspace(const Sweep<float>& sweep) { return workspace_of(sweep); }
int64_t diag_workspace(const Sweep<double>& sweep) { return workspace_of(sweep); }
int diag(const Sweep<float>& sweep, float* workspace, void* stream) { return run(sweep, workspace, stream); }
int diag(const Sweep<double>& sweep, double* workspace, void* stream) { return run(sweep, workspace, stream); }

}  // namespace ntkfast::cuda
