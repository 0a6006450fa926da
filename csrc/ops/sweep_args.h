// From the arguments that every sweep operator shares to the plain structs of csrc/core/params.h.
//
//   parameters   W_0, b_0, W_1, b_1, …; an empty tensor where a layer has no bias
//   activations  one code of core::Activation a layer
//   constants    six numbers a layer: weight scale, bias scale, the same two for θ in the Jacobian (else 0), β and
//                threshold
//   points       per group (n, d)
//   beta, omega  per group (1|n, F+M, d) and (1|n, M, F)
//   groups       per group: n, F, M, k, selected (0|1), then per component: directions, collapsed, their indices
#pragma once

#include <vector>

#include "../core/params.h"
#include "../cpu/dispatch.h"
#include "checks.h"

namespace ntkfast {

// Slots on torch's own threads, no more than so many operations are worth.
Parallel torch_parallel(double operations);

// Owns the structs that a Sweep points to.
template <class T>
class SweepArgs {
 public:
  SweepArgs(const char* op, const Tensors& parameters, const Ints& activations, const Floats& constants,
            const Ints& groups);
  SweepArgs(const SweepArgs&) = delete;
  SweepArgs& operator=(const SweepArgs&) = delete;

  void set_points(const Tensors& points, const Tensors& beta);
  void set_omega(const Tensors& omega);
  void set_seeds(const Tensors& seeds);  // one a component, (C_j, n, n_out), any strides
  // All that a sweep needs which keeps no stacks; every group takes part.
  void set_streaming(const Tensors& points, const Tensors& beta, const Tensors& omega, const Tensors& seeds,
                     int64_t tile_rows);
  void set_diag(const Tensor& diag, const char* name);  // (layers, N), float64
  void set_inputs(const Tensor& A);                     // flat: (rows, n_in) a layer, one after the other
  void set_stash(const Tensor& Z);                      // flat: (rows, n_out) a layer that keeps it
  void set_cotangents(const Tensor& D);                 // flat: (cotangent_rows, n_out) a layer

  Sweep<T> sweep{};

 private:
  void add_group(const Ints& groups, std::size_t& at);

  const char* op_;
  Tensor like_;  // whose device everything is on
  std::vector<Layer<T>> layers_;
  std::vector<Group<T>> groups_;
  std::vector<Component> components_;
  std::vector<std::size_t> first_component_;
  std::vector<int> channels_;
  std::vector<T*> A_, Z_, D_;
};

// One tensor a parameter, of its shape; an empty one is left out. T is const where they are read.
template <class T>
struct ParameterPointers {
  std::vector<T*> weight, bias;

  ParameterPointers(const char* op, const Tensors& tensors, const char* name, const Tensors& parameters) {
    STD_TORCH_CHECK(tensors.size() == parameters.size(), op, ": expected a ", name, " for each of ", parameters.size(),
                    " parameters, got ", tensors.size(), ".");
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      check_plain(op, tensors[i], name, dtype_of<T>(), parameters[0]);
      if (tensors[i].numel()) check_shape(op, tensors[i], name, shape_of(parameters[i]));
      (i % 2 ? bias : weight).push_back(tensors[i].numel() ? data_of<T>(tensors[i]) : nullptr);
    }
  }
};

// Floating point operations of the products of so many stack rows with all weights, and of packing these.
template <class T>
double product_operations(const Sweep<T>& sweep, int64_t rows) {
  double entries = 0;
  for (int l = 0; l < sweep.layers; ++l)
    entries += static_cast<double>(sweep.layer[l].n_in) * static_cast<double>(sweep.layer[l].n_out);
  return (2.0 * static_cast<double>(rows) + 4.0) * entries;
}

// Features of all stacks, Σ (n_in + n_out).
template <class T>
double stack_features(const Sweep<T>& sweep) {
  double features = 0;
  for (int l = 0; l < sweep.layers; ++l) features += static_cast<double>(sweep.layer[l].n_in + sweep.layer[l].n_out);
  return features;
}

}  // namespace ntkfast
