// What operators refuse, with one sentence each: "ntkfast.<op>: expected …, got ….". `op` is the operator's name.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <string>
#include <type_traits>
#include <vector>

namespace ntkfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using Ints = std::vector<int64_t>;
using Floats = std::vector<double>;

Ints shape_of(const Tensor& tensor);
std::string shape_text(const Ints& shape);
std::string shape_text(const Tensor& tensor);
std::string dtype_text(ScalarType dtype);

// Of this dtype, on the device of another tensor: in most operators the first parameter's.
void check_place(const char* op, const Tensor& tensor, const char* name, ScalarType dtype, const Tensor& like);

// The same, and contiguous.
void check_plain(const char* op, const Tensor& tensor, const char* name, ScalarType dtype, const Tensor& like);

void check_shape(const char* op, const Tensor& tensor, const char* name, const Ints& shape);

// What is written shares no memory with what is read.
void check_apart(const char* op, const Tensor& output, const Tensor& input, const char* name);

template <class T>
constexpr ScalarType dtype_of() {
  return sizeof(T) == 4 ? ScalarType::Float : ScalarType::Double;
}

// T is const where the tensor is only read.
template <class T>
T* data_of(const Tensor& tensor) {
  if constexpr (std::is_const_v<T>) return static_cast<T*>(tensor.const_data_ptr());
  else return static_cast<T*>(tensor.mutable_data_ptr());
}

// Calls body(float{}) or body(double{}) by a tensor's dtype.
template <class Body>
void with_dtype(const char* op, const Tensor& tensor, const char* name, const Body& body) {
  const ScalarType dtype = tensor.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op, ": expected ", name,
                  " in float32 or float64, got ", dtype_text(dtype), ".");
  if (dtype == ScalarType::Float) body(float{});
  else body(double{});
}

template <class Body>
void with_dtype(const char* op, const Tensors& parameters, const Body& body) {
  STD_TORCH_CHECK(!parameters.empty(), op, ": expected at least one layer, got none.");
  with_dtype(op, parameters[0], "parameters", body);
}

}  // namespace ntkfast
