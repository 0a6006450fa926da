// From the arguments that every sweep operator shares to the plain structs of csrc/cpu.
//
//   parameters   W_0, b_0, W_1, b_1, …; an empty tensor where a layer has no bias
//   activations  one code of core::Activation a layer
//   constants    six numbers a layer: weight scale, bias scale, the same two for θ in the Jacobian (else 0), β, threshold
//   points       per group (n, d)
//   beta, omega  per group (1|n, F+M, d) and (1|n, M, F)
//   groups       per group: n, F, M, k, selected (0|1), then per component: directions, collapsed, their indices
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <string>
#include <vector>

#include "../cpu/params.h"

namespace ntkfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using Ints = std::vector<int64_t>;
using Floats = std::vector<double>;

// Slots on torch's own threads, no more than so many operations are worth.
Parallel torch_parallel(double operations);

template <class T>
constexpr ScalarType dtype_of() {
  return sizeof(T) == 4 ? ScalarType::Float : ScalarType::Double;
}

std::string shape_text(const Tensor& tensor);

// Contiguous, of this dtype, on the device of another tensor: in an operator the first parameter's.
void check_plain(const Tensor& tensor, ScalarType dtype, const char* name, const Tensor& like);

template <class T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Calls body(float{}) or body(double{}) by the parameters' dtype.
template <class Body>
void with_dtype(const Tensors& parameters, const Body& body) {
  STD_TORCH_CHECK(!parameters.empty(), "ntkfast: expected at least one layer, got none");
  const ScalarType dtype = parameters[0].scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "ntkfast: expected float32 or float64 parameters");
  if (dtype == ScalarType::Float) body(float{});
  else body(double{});
}

// Owns the structs that a Sweep points to.
template <class T>
class SweepArgs {
 public:
  SweepArgs(const Tensors& parameters, const Ints& activations, const Floats& constants, const Ints& groups);
  SweepArgs(const SweepArgs&) = delete;
  SweepArgs& operator=(const SweepArgs&) = delete;

  void set_points(const Tensors& points, const Tensors& beta);
  void set_omega(const Tensors& omega);
  void set_seeds(const Tensors& seeds);  // one a component, (C_j, n, n_out), any strides
  // All that a sweep needs which keeps no stacks; every group takes part.
  void set_streaming(const Tensors& points, const Tensors& beta, const Tensors& omega, const Tensors& seeds,
                     int64_t tile_rows);
  void set_inputs(const Tensor& A);      // flat: (rows, n_in) a layer, one after the other; empty: not kept
  void set_stash(const Tensor& Z);       // flat: (rows, n_out) a layer that an activation follows
  void set_cotangents(const Tensor& D);  // flat: (cotangent_rows, n_out) a layer

  Sweep<T> sweep{};

 private:
  void add_group(const Ints& groups, std::size_t& at);

  Tensor like_;  // whose device everything is on
  std::vector<Layer<T>> layers_;
  std::vector<Group<T>> groups_;
  std::vector<Component> components_;
  std::vector<std::size_t> first_component_;
  std::vector<int> channels_;
  std::vector<T*> A_, Z_, D_;
};

// One tensor a parameter to write a gradient into; an empty one is left out.
template <class T>
struct GradientPointers {
  std::vector<T*> weight, bias;

  GradientPointers(const Tensors& grads, const Tensors& parameters) {
    STD_TORCH_CHECK(grads.size() == parameters.size(), "ntkfast: expected ", parameters.size(), " gradients, got ",
                    grads.size());
    for (std::size_t i = 0; i < grads.size(); ++i) {
      check_plain(grads[i], dtype_of<T>(), "gradient", parameters[0]);
      STD_TORCH_CHECK(grads[i].numel() == 0 || grads[i].numel() == parameters[i].numel(),
                      "ntkfast: expected a gradient of shape ", shape_text(parameters[i]), ", got ",
                      shape_text(grads[i]));
      (i % 2 ? bias : weight).push_back(grads[i].numel() ? data_of<T>(grads[i]) : nullptr);
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
