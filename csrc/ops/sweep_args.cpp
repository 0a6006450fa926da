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

std::string shape_text(const Tensor& tensor) {
  std::string text = "(";
  for (int64_t i = 0; i < tensor.dim(); ++i) text += (i ? ", " : "") + std::to_string(tensor.size(i));
  return text + ")";
}

void check_plain(const Tensor& tensor, ScalarType dtype, const char* name, const Tensor& like) {
  STD_TORCH_CHECK(tensor.device() == like.device(), "ntkfast: expected ", name,
                  " on the device of the parameters, got another device");
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, "ntkfast: expected ", name, " of the parameters' dtype, got another");
  STD_TORCH_CHECK(tensor.is_contiguous(), "ntkfast: expected ", name, " contiguous, got shape ", shape_text(tensor),
                  " with gaps");
  STD_TORCH_CHECK(tensor.numel() == 0 || tensor.const_data_ptr() != nullptr, "ntkfast: expected ", name,
                  " with memory, got one whose storage was freed");
}

template <class T>
SweepArgs<T>::SweepArgs(const Tensors& parameters, const Ints& activations, const Floats& constants, const Ints& groups)
    : like_(parameters[0]) {
  const std::size_t L = activations.size();
  STD_TORCH_CHECK(parameters.size() == 2 * L && constants.size() == 6 * L,
                  "ntkfast: expected 2 parameters and 6 constants a layer, got ", parameters.size(), " and ",
                  constants.size(), " for ", L, " layers");
  for (std::size_t l = 0; l < L; ++l) {
    const Tensor &weight = parameters[2 * l], &bias = parameters[2 * l + 1];
    check_plain(weight, dtype_of<T>(), "weight", like_);
    check_plain(bias, dtype_of<T>(), "bias", like_);
    STD_TORCH_CHECK(weight.dim() == 2, "ntkfast: expected a 2-d weight, got shape ", shape_text(weight));
    const int64_t n_out = weight.size(0), n_in = weight.size(1);
    STD_TORCH_CHECK(n_out > 0 && n_in > 0, "ntkfast: expected at least one feature on either side, got a weight ",
                    shape_text(weight));
    STD_TORCH_CHECK(l == 0 || n_in == layers_.back().n_out, "ntkfast: expected a weight with ",
                    l == 0 ? 0 : layers_.back().n_out, " columns, got ", shape_text(weight));
    STD_TORCH_CHECK(bias.numel() == 0 || bias.numel() == n_out, "ntkfast: expected ", n_out, " biases, got ",
                    bias.numel());
    STD_TORCH_CHECK(activations[l] >= 0 && activations[l] < core::kActivations,
                    "ntkfast: expected an activation code below ", core::kActivations, ", got ", activations[l]);
    const double* c = constants.data() + 6 * l;
    layers_.push_back({static_cast<const T*>(weight.const_data_ptr()),
                       bias.numel() ? static_cast<const T*>(bias.const_data_ptr()) : nullptr,
                       n_in,
                       n_out,
                       static_cast<core::Activation>(activations[l]),
                       {T(c[4]), T(c[5])},
                       T(c[0]),
                       T(c[1]),
                       T(c[2]),
                       bias.numel() ? T(c[3]) : T(0)});
  }
  for (std::size_t at = 0; at < groups.size();) add_group(groups, at);
  double features = 1;
  for (const Layer<T>& layer : layers_) features += static_cast<double>(layer.n_in) + static_cast<double>(layer.n_out);
  const double stack = static_cast<double>(sweep.rows) + static_cast<double>(sweep.cotangent_rows);
  STD_TORCH_CHECK(stack * features < 9e18, "ntkfast: expected stacks of fewer than 2^63 elements, got ", stack,
                  " rows of ", features, " features");
  const int* channel = channels_.data();
  for (Component& component : components_) {
    component.channel = channel;
    channel += component.channels;
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) groups_[g].component = components_.data() + first_component_[g];
  sweep.layers = static_cast<int>(L);
  sweep.layer = layers_.data();
  sweep.groups = static_cast<int>(groups_.size());
  sweep.group = groups_.data();
}

template <class T>
void SweepArgs<T>::add_group(const Ints& groups, std::size_t& at) {
  const auto next = [&](int64_t least, int64_t end) {
    STD_TORCH_CHECK(at < groups.size(), "ntkfast: expected a complete group description, got ", groups.size(),
                    " numbers");
    STD_TORCH_CHECK(groups[at] >= least && groups[at] < end, "ntkfast: expected a group number in [", least, ", ", end,
                    "), got ", groups[at]);
    return groups[at++];
  };
  constexpr int64_t kMany = int64_t{1} << 32;
  Group<T> group{};
  group.n = next(0, kMany);
  group.directions = static_cast<int>(next(0, 1 << 12));
  group.collapsed = static_cast<int>(next(0, 1 << 12));
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
    for (int k = 0; k < component.directions; ++k) channels_.push_back(static_cast<int>(1 + next(0, group.directions)));
    for (int m = 0; m < component.collapsed; ++m)
      channels_.push_back(static_cast<int>(1 + group.directions + next(0, group.collapsed)));
    sweep.cotangent_rows += component.channels * group.n;
    components_.push_back(component);
  }
  sweep.rows += (1 + group.directions + group.collapsed) * group.n;
  if (group.selected) sweep.residual_rows += group.components * group.n;
  groups_.push_back(group);
}

template <class T>
void SweepArgs<T>::set_points(const Tensors& points, const Tensors& beta) {
  STD_TORCH_CHECK(points.size() == groups_.size() && beta.size() == groups_.size(),
                  "ntkfast: expected points and beta for ", groups_.size(), " groups, got ", points.size(), " and ",
                  beta.size());
  const int64_t d = layers_[0].n_in;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Group<T>& group = groups_[g];
    check_plain(points[g], dtype_of<T>(), "points", like_);
    check_plain(beta[g], dtype_of<T>(), "beta", like_);
    const int64_t channels = group.directions + group.collapsed;
    STD_TORCH_CHECK(points[g].dim() == 2 && points[g].size(0) == group.n && points[g].size(1) == d,
                    "ntkfast: expected points (", group.n, ", ", d, "), got ", shape_text(points[g]));
    STD_TORCH_CHECK(beta[g].dim() == 3 && beta[g].size(1) == channels && beta[g].size(2) == d &&
                        (beta[g].size(0) == 1 || beta[g].size(0) == group.n),
                    "ntkfast: expected beta (1 or ", group.n, ", ", channels, ", ", d, "), got ", shape_text(beta[g]));
    group.points = static_cast<const T*>(points[g].const_data_ptr());
    group.beta = static_cast<const T*>(beta[g].const_data_ptr());
    group.beta_stride = beta[g].size(0) == 1 ? 0 : channels * d;
  }
}

template <class T>
void SweepArgs<T>::set_omega(const Tensors& omega) {
  STD_TORCH_CHECK(omega.size() == groups_.size(), "ntkfast: expected omega for ", groups_.size(), " groups, got ",
                  omega.size());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Group<T>& group = groups_[g];
    check_plain(omega[g], dtype_of<T>(), "omega", like_);
    STD_TORCH_CHECK(omega[g].dim() == 3 && omega[g].size(1) == group.collapsed &&
                        omega[g].size(2) == group.directions && (omega[g].size(0) == 1 || omega[g].size(0) == group.n),
                    "ntkfast: expected omega (1 or ", group.n, ", ", group.collapsed, ", ", group.directions, "), got ",
                    shape_text(omega[g]));
    group.omega = static_cast<const T*>(omega[g].const_data_ptr());
    group.omega_stride = omega[g].size(0) == 1 ? 0 : int64_t{group.collapsed} * group.directions;
  }
}

template <class T>
void SweepArgs<T>::set_seeds(const Tensors& seeds) {
  STD_TORCH_CHECK(seeds.size() == components_.size(), "ntkfast: expected seeds for ", components_.size(),
                  " components, got ", seeds.size());
  std::size_t j = 0;
  for (const Group<T>& group : groups_)
    for (int i = 0; i < group.components; ++i, ++j) {
      const Tensor& seed = seeds[j];
      STD_TORCH_CHECK(seed.device() == like_.device() && seed.scalar_type() == dtype_of<T>(),
                      "ntkfast: expected seeds on the device of the parameters, of their dtype");
      STD_TORCH_CHECK(seed.dim() == 3 && seed.size(0) == components_[j].channels && seed.size(1) == group.n &&
                          seed.size(2) == layers_.back().n_out,
                      "ntkfast: expected seeds (", components_[j].channels, ", ", group.n, ", ", layers_.back().n_out,
                      "), got ", shape_text(seed));
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
    STD_TORCH_CHECK(group.selected, "ntkfast: expected all groups to take part in a streaming sweep");
  STD_TORCH_CHECK(tile_rows >= 0 && tile_rows < (int64_t{1} << 31), "ntkfast: expected 0 to 2^31 tile rows, got ",
                  tile_rows);
  sweep.tile_rows = tile_rows;
}

// Cuts a flat tensor into one (rows, width(l)) matrix a layer.
template <class T, class Width>
static std::vector<T*> split(const Tensor& flat, const Tensor& like, const Sweep<T>& sweep, int64_t rows,
                             const char* name, const Width& width) {
  check_plain(flat, dtype_of<T>(), name, like);
  std::vector<T*> parts;
  int64_t offset = 0;
  for (int l = 0; l < sweep.layers; ++l) {
    const int64_t w = width(l);
    parts.push_back(w > 0 ? data_of<T>(flat) + offset : nullptr);
    offset += rows * w;
  }
  STD_TORCH_CHECK(flat.numel() == offset, "ntkfast: expected ", name, " with ", offset, " elements, got ",
                  flat.numel());
  return parts;
}

template <class T>
void SweepArgs<T>::set_inputs(const Tensor& A) {
  A_ = split(A, like_, sweep, sweep.rows, "A", [&](int l) { return sweep.layer[l].n_in; });
  sweep.A = A_.data();
}

template <class T>
void SweepArgs<T>::set_stash(const Tensor& Z) {
  Z_ = split(Z, like_, sweep, sweep.rows, "Z", [&](int l) { return keeps_stash(sweep, l) ? sweep.layer[l].n_out : 0; });
  sweep.Z = Z_.data();
}

template <class T>
void SweepArgs<T>::set_cotangents(const Tensor& D) {
  D_ = split(D, like_, sweep, sweep.cotangent_rows, "D", [&](int l) { return sweep.layer[l].n_out; });
  sweep.D = D_.data();
}

template class SweepArgs<float>;
template class SweepArgs<double>;

}  // namespace ntkfast
