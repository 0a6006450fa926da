#include "sweep_args.h"

#include <algorithm>

namespace ntkfast {

Parallel torch_parallel(double operations) {
  // Some ten microseconds of work for each thread: to wake one costs that much, and far more on a busy machine.
  constexpr double kGrain = 2e6;
  const double most = static_cast<double>(torch::stable::get_num_threads());
  const int slots = static_cast<int>(std::max(1.0, std::min(most, operations / kGrain)));
  return {slots, [](int threads, void (*body)(void*, int), void* context) {
            if (threads == 1) return body(context, 0);
            torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
              for (int64_t slot = begin; slot < end; ++slot) body(context, static_cast<int>(slot));
            });
          }};
}

template <class T>
SweepArgs<T>::SweepArgs(const char* op, const Tensors& parameters, const Ints& activations, const Floats& constants,
                        const Ints& groups)
    : op_(op), like_(parameters[0]) {
  const std::size_t L = activations.size();
  STD_TORCH_CHECK(parameters.size() == 2 * L && constants.size() == 6 * L, op_,
                  ": expected 2 parameters and 6 constants a layer, got ", parameters.size(), " and ", constants.size(),
                  " for ", L, " layers.");
  for (std::size_t l = 0; l < L; ++l) {
    const Tensor &weight = parameters[2 * l], &bias = parameters[2 * l + 1];
    check_plain(op_, weight, "weight", dtype_of<T>(), like_);
    check_plain(op_, bias, "bias", dtype_of<T>(), like_);
    STD_TORCH_CHECK(weight.dim() == 2, op_, ": expected a 2-d weight, got shape ", shape_text(weight), ".");
    const int64_t n_out = weight.size(0), n_in = weight.size(1);
    STD_TORCH_CHECK(n_out > 0 && n_in > 0, op_, ": expected at least one feature on either side, got a weight ",
                    shape_text(weight), ".");
    STD_TORCH_CHECK(l == 0 || n_in == layers_.back().n_out, op_, ": expected a weight with ",
                    l == 0 ? 0 : layers_.back().n_out, " columns, got ", shape_text(weight), ".");
    STD_TORCH_CHECK(bias.numel() == 0 || bias.numel() == n_out, op_, ": expected ", n_out, " biases, got ",
                    bias.numel(), ".");
    STD_TORCH_CHECK(activations[l] >= 0 && activations[l] < core::kActivations, op_,
                    ": expected an activation code below ", core::kActivations, ", got ", activations[l], ".");
    const auto activation = static_cast<core::Activation>(activations[l]);
    const double* c = constants.data() + 6 * l;
    const T bias_jacobian = bias.numel() ? T(c[3]) : T(0);
    layers_.push_back({data_of<const T>(weight),
                       bias.numel() ? data_of<const T>(bias) : nullptr,
                       n_in,
                       n_out,
                       activation,
                       {T(c[4]), T(c[5])},
                       T(c[0]),
                       T(c[1]),
                       T(c[2]),
                       bias_jacobian,
                       l + 1 < L || activation != core::Activation::identity,
                       T(c[2]) != T(0) || bias_jacobian != T(0)});
  }
  for (std::size_t at = 0; at < groups.size();) add_group(groups, at);
  double features = 1;
  for (const Layer<T>& layer : layers_) features += static_cast<double>(layer.n_in) + static_cast<double>(layer.n_out);
  const double stack = static_cast<double>(sweep.rows) + static_cast<double>(sweep.cotangent_rows);
  STD_TORCH_CHECK(stack * features < 9e18, op_, ": expected stacks of fewer than 2^63 elements, got ", stack,
                  " rows of ", features, " features.");
  const int* channel = channels_.data();
  for (Component& component : components_) {
    component.channel = channel;
    channel += component.channels;
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) groups_[g].component = components_.data() + first_component_[g];
  sweep.layers = static_cast<int>(L);
  sweep.layer = layers_.data();
  while (sweep.first_active + 1 < sweep.layers && !layers_[sweep.first_active].active) ++sweep.first_active;
  sweep.groups = static_cast<int>(groups_.size());
  sweep.group = groups_.data();
}

template <class T>
void SweepArgs<T>::add_group(const Ints& groups, std::size_t& at) {
  const auto next = [&](int64_t least, int64_t end) {
    STD_TORCH_CHECK(at < groups.size(), op_, ": expected a complete group description, got ", groups.size(),
                    " numbers.");
    STD_TORCH_CHECK(groups[at] >= least && groups[at] < end, op_, ": expected a group number in [", least, ", ", end,
                    "), got ", groups[at], ".");
    return groups[at++];
  };
  constexpr int64_t kMany = int64_t{1} << 32;
  Group<T> group{};
  group.n = next(0, kMany);
  group.directions = static_cast<int>(next(0, 1 << 12));
  group.collapsed = static_cast<int>(next(0, 1 << 12));
  group.channels = 1 + group.directions + group.collapsed;
  group.components = static_cast<int>(next(0, 1 << 16));
  group.selected = next(0, 2) != 0;
  group.row = sweep.rows;
  group.residual_row = sweep.residual_rows;
  first_component_.push_back(components_.size());
  for (int j = 0; j < group.components; ++j) {
    Component component{};
    component.directions = static_cast<int>(next(0, group.directions + 1));
    component.collapsed = static_cast<int>(next(0, group.collapsed + 1));
    component.channels = 1 + component.directions + component.collapsed;
    component.row = sweep.cotangent_rows;
    channels_.push_back(0);
    const auto ascending = [&](int count, int first, int64_t end) {
      int64_t least = 0;
      for (int k = 0; k < count; ++k) {
        const int64_t index = next(least, end);
        channels_.push_back(static_cast<int>(first + index));
        least = index + 1;
      }
    };
    ascending(component.directions, 1, group.directions);
    ascending(component.collapsed, 1 + group.directions, group.collapsed);
    sweep.cotangent_rows += component.channels * group.n;
    components_.push_back(component);
  }
  sweep.rows += group.channels * group.n;
  if (group.selected) sweep.residual_rows += group.components * group.n;
  groups_.push_back(group);
}

template <class T>
void SweepArgs<T>::set_points(const Tensors& points, const Tensors& beta) {
  STD_TORCH_CHECK(points.size() == groups_.size() && beta.size() == groups_.size(), op_,
                  ": expected points and beta for ", groups_.size(), " groups, got ", points.size(), " and ",
                  beta.size(), ".");
  const int64_t d = layers_[0].n_in;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Group<T>& group = groups_[g];
    check_plain(op_, points[g], "points", dtype_of<T>(), like_);
    check_plain(op_, beta[g], "beta", dtype_of<T>(), like_);
    const int64_t derivatives = group.channels - 1;
    check_shape(op_, points[g], "points", {group.n, d});
    STD_TORCH_CHECK(beta[g].dim() == 3 && beta[g].size(1) == derivatives && beta[g].size(2) == d &&
                        (beta[g].size(0) == 1 || beta[g].size(0) == group.n),
                    op_, ": expected beta (1 or ", group.n, ", ", derivatives, ", ", d, "), got ", shape_text(beta[g]),
                    ".");
    group.points = data_of<const T>(points[g]);
    group.beta = data_of<const T>(beta[g]);
    group.beta_stride = beta[g].size(0) == 1 ? 0 : derivatives * d;
  }
}

template <class T>
void SweepArgs<T>::set_omega(const Tensors& omega) {
  STD_TORCH_CHECK(omega.size() == groups_.size(), op_, ": expected omega for ", groups_.size(), " groups, got ",
                  omega.size(), ".");
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Group<T>& group = groups_[g];
    check_plain(op_, omega[g], "omega", dtype_of<T>(), like_);
    STD_TORCH_CHECK(omega[g].dim() == 3 && omega[g].size(1) == group.collapsed &&
                        omega[g].size(2) == group.directions && (omega[g].size(0) == 1 || omega[g].size(0) == group.n),
                    op_, ": expected omega (1 or ", group.n, ", ", group.collapsed, ", ", group.directions, "), got ",
                    shape_text(omega[g]), ".");
    group.omega = data_of<const T>(omega[g]);
    group.omega_stride = omega[g].size(0) == 1 ? 0 : int64_t{group.collapsed} * group.directions;
  }
}

template <class T>
void SweepArgs<T>::set_seeds(const Tensors& seeds) {
  STD_TORCH_CHECK(seeds.size() == components_.size(), op_, ": expected seeds for ", components_.size(),
                  " components, got ", seeds.size(), ".");
  std::size_t j = 0;
  for (const Group<T>& group : groups_)
    for (int i = 0; i < group.components; ++i, ++j) {
      const Tensor& seed = seeds[j];
      check_place(op_, seed, "seeds", dtype_of<T>(), like_);
      check_shape(op_, seed, "seeds", {components_[j].channels, group.n, layers_.back().n_out});
      components_[j].seed = seed.const_data_ptr();
      for (int axis = 0; axis < 3; ++axis) components_[j].seed_stride[axis] = seed.stride(axis);
    }
}

template <class T>
void SweepArgs<T>::set_streaming(const Tensors& points, const Tensors& beta, const Tensors& omega, const Tensors& seeds,
                                 int64_t tile_rows) {
  set_points(points, beta);
  set_omega(omega);
  set_seeds(seeds);
  for (const Group<T>& group : groups_)
    STD_TORCH_CHECK(group.selected, op_,
                    ": expected all groups to take part in a streaming sweep, got one that does not.");
  STD_TORCH_CHECK(tile_rows >= 0 && tile_rows < (int64_t{1} << 31), op_, ": expected 0 to 2^31 tile rows, got ",
                  tile_rows, ".");
  sweep.tile_rows = tile_rows;
}

// Cuts a flat tensor into one (rows, width(l)) matrix a layer.
template <class T, class Width>
static std::vector<T*> split(const char* op, const Tensor& flat, const char* name, const Tensor& like,
                             const Sweep<T>& sweep, int64_t rows, const Width& width) {
  check_plain(op, flat, name, dtype_of<T>(), like);
  std::vector<T*> parts;
  int64_t offset = 0;
  for (int l = 0; l < sweep.layers; ++l) {
    const int64_t w = width(l);
    parts.push_back(w > 0 ? data_of<T>(flat) + offset : nullptr);
    offset += rows * w;
  }
  STD_TORCH_CHECK(flat.numel() == offset, op, ": expected ", name, " with ", offset, " elements, got ", flat.numel(),
                  ".");
  return parts;
}

template <class T>
void SweepArgs<T>::set_diag(const Tensor& diag, const char* name) {
  check_plain(op_, diag, name, ScalarType::Double, like_);
  check_shape(op_, diag, name, {sweep.layers, sweep.residual_rows});
  sweep.diag = data_of<double>(diag);
}

template <class T>
void SweepArgs<T>::set_inputs(const Tensor& A) {
  A_ = split(op_, A, "A", like_, sweep, sweep.rows, [&](int l) { return sweep.layer[l].n_in; });
  sweep.A = A_.data();
}

template <class T>
void SweepArgs<T>::set_stash(const Tensor& Z) {
  Z_ = split(op_, Z, "Z", like_, sweep, sweep.rows,
             [&](int l) { return sweep.layer[l].keeps_stash ? sweep.layer[l].n_out : 0; });
  sweep.Z = Z_.data();
}

template <class T>
void SweepArgs<T>::set_cotangents(const Tensor& D) {
  D_ = split(op_, D, "D", like_, sweep, sweep.cotangent_rows, [&](int l) { return sweep.layer[l].n_out; });
  sweep.D = D_.data();
}

template class SweepArgs<float>;
template class SweepArgs<double>;

}  // namespace ntkfast
