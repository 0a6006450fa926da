// A Sweep from plain arrays, for the exports of this folder: what csrc/ops/sweep_args.h makes from tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../../csrc/core/params.h"

namespace cuda_host {

// What ctypes passes; see test_sweeps_on_host.py.
struct ChainArrays {
  int layers;
  const void* const* parameters;  // W_0, b_0, …; null where there is none
  const int64_t* widths;          // layers + 1
  const int* activations;
  const double* constants;  // six a layer
};

struct GroupArrays {
  int size;             // of spec
  const int64_t* spec;  // csrc/ops/sweep_args.h
  const void *const *points, *const *beta, *const *omega;
  const int64_t *beta_rows, *omega_rows;
  const void* const* seeds;     // one a component, or null
  const int64_t* seed_strides;  // three a component
};

template <class T>
class HostSweep {
 public:
  HostSweep(const ChainArrays& chain, const GroupArrays& groups) {
    for (int l = 0; l < chain.layers; ++l) {
      const double* c = chain.constants + 6 * l;
      const auto activation = static_cast<ntkfast::core::Activation>(chain.activations[l]);
      const T* bias = static_cast<const T*>(chain.parameters[2 * l + 1]);
      const T bias_jacobian = bias == nullptr ? T(0) : T(c[3]);
      layers_.push_back({static_cast<const T*>(chain.parameters[2 * l]),
                         bias,
                         chain.widths[l],
                         chain.widths[l + 1],
                         activation,
                         {T(c[4]), T(c[5])},
                         T(c[0]),
                         T(c[1]),
                         T(c[2]),
                         bias_jacobian,
                         l + 1 < chain.layers || activation != ntkfast::core::Activation::identity,
                         T(c[2]) != T(0) || bias_jacobian != T(0)});
    }
    sweep.layers = chain.layers;
    sweep.layer = layers_.data();
    while (sweep.first_active + 1 < sweep.layers && !layers_[sweep.first_active].active) ++sweep.first_active;
    for (int at = 0; at < groups.size;) add_group(groups, at);
    for (size_t j = 0; j < components_.size(); ++j) components_[j].channel = channels_.data() + first_channel_[j];
    for (size_t g = 0; g < groups_.size(); ++g) groups_[g].component = components_.data() + first_component_[g];
    sweep.groups = static_cast<int>(groups_.size());
    sweep.group = groups_.data();
  }
  HostSweep(const HostSweep&) = delete;

  // Flat stacks, layer after layer; null: none.
  void set_stacks(void* A, void* Z, void* D) {
    A_ = split(A, sweep.rows, [&](int l) { return layers_[l].n_in; });
    D_ = split(D, sweep.cotangent_rows, [&](int l) { return layers_[l].n_out; });
    Z_ = split(Z, sweep.rows, [&](int l) { return layers_[l].keeps_stash ? layers_[l].n_out : 0; });
    sweep.A = A_.data();
    sweep.Z = Z_.data();
    sweep.D = D_.data();
  }

  ntkfast::Sweep<T> sweep{};

 private:
  void add_group(const GroupArrays& given, int& at) {
    const size_t g = groups_.size();
    ntkfast::Group<T> group{};
    group.n = given.spec[at++];
    group.directions = static_cast<int>(given.spec[at++]);
    group.collapsed = static_cast<int>(given.spec[at++]);
    group.channels = 1 + group.directions + group.collapsed;
    group.components = static_cast<int>(given.spec[at++]);
    group.selected = given.spec[at++] != 0;
    group.row = sweep.rows;
    group.residual_row = sweep.residual_rows;
    const int64_t F = group.directions, M = group.collapsed;
    if (given.points != nullptr) {
      group.points = static_cast<const T*>(given.points[g]);
      group.beta = static_cast<const T*>(given.beta[g]);
      group.omega = static_cast<const T*>(given.omega[g]);
      group.beta_stride = given.beta_rows[g] == 1 ? 0 : (F + M) * layers_[0].n_in;
      group.omega_stride = given.omega_rows[g] == 1 ? 0 : M * F;
    }
    first_component_.push_back(components_.size());
    for (int j = 0; j < group.components; ++j) add_component(given, at, group);
    sweep.rows += group.channels * group.n;
    if (group.selected) sweep.residual_rows += group.components * group.n;
    groups_.push_back(group);
  }

  void add_component(const GroupArrays& given, int& at, const ntkfast::Group<T>& group) {
    ntkfast::Component component{};
    const size_t number = components_.size();
    component.directions = static_cast<int>(given.spec[at++]);
    component.collapsed = static_cast<int>(given.spec[at++]);
    component.channels = 1 + component.directions + component.collapsed;
    component.row = sweep.cotangent_rows;
    first_channel_.push_back(channels_.size());
    channels_.push_back(0);
    for (int k = 0; k < component.directions; ++k) channels_.push_back(static_cast<int>(1 + given.spec[at++]));
    for (int m = 0; m < component.collapsed; ++m)
      channels_.push_back(static_cast<int>(1 + group.directions + given.spec[at++]));
    if (given.seeds != nullptr) {
      component.seed = given.seeds[number];
      for (int axis = 0; axis < 3; ++axis) component.seed_stride[axis] = given.seed_strides[3 * number + axis];
    }
    sweep.cotangent_rows += component.channels * group.n;
    components_.push_back(component);
  }

  template <class Width>
  std::vector<T*> split(void* flat, int64_t rows, const Width& width) const {
    std::vector<T*> parts;
    int64_t offset = 0;
    for (int l = 0; l < sweep.layers; ++l) {
      parts.push_back(flat != nullptr && width(l) > 0 ? static_cast<T*>(flat) + offset : nullptr);
      offset += rows * width(l);
    }
    return parts;
  }

  std::vector<ntkfast::Layer<T>> layers_;
  std::vector<ntkfast::Group<T>> groups_;
  std::vector<ntkfast::Component> components_;
  std::vector<size_t> first_component_, first_channel_;
  std::vector<int> channels_;
  std::vector<T*> A_, Z_, D_;
};

}  // namespace cuda_host
