#include "checks.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <utility>

namespace ntkfast {
namespace {

std::string device_text(const Tensor& tensor) {
  const auto device = tensor.device();
  if (device.is_cpu()) return "cpu";
  return device.is_cuda() ? "cuda:" + std::to_string(device.index()) : "another device";
}

}  // namespace

Ints shape_of(const Tensor& tensor) {
  Ints shape;
  for (int64_t i = 0; i < tensor.dim(); ++i) shape.push_back(tensor.size(i));
  return shape;
}

std::string shape_text(const Ints& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string shape_text(const Tensor& tensor) { return shape_text(shape_of(tensor)); }

// By the name that Python knows.
std::string dtype_text(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    default: break;
  }
  std::string name = torch::headeronly::toString(dtype);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name;
}

void check_place(const char* op, const Tensor& tensor, const char* name, ScalarType dtype, const Tensor& like) {
  STD_TORCH_CHECK(tensor.device() == like.device(), op, ": expected ", name, " on ", device_text(like), ", got ",
                  device_text(tensor), ".");
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, op, ": expected ", name, " in ", dtype_text(dtype), ", got ",
                  dtype_text(tensor.scalar_type()), ".");
  STD_TORCH_CHECK(tensor.numel() == 0 || tensor.const_data_ptr() != nullptr, op, ": expected ", name,
                  " with memory, got one whose storage was freed.");
}

void check_plain(const char* op, const Tensor& tensor, const char* name, ScalarType dtype, const Tensor& like) {
  check_place(op, tensor, name, dtype, like);
  STD_TORCH_CHECK(tensor.is_contiguous(), op, ": expected ", name, " contiguous, got shape ", shape_text(tensor),
                  " with gaps.");
}

void check_shape(const char* op, const Tensor& tensor, const char* name, const Ints& shape) {
  STD_TORCH_CHECK(shape_of(tensor) == shape, op, ": expected ", name, " ", shape_text(shape), ", got ",
                  shape_text(tensor), ".");
}

void check_apart(const char* op, const Tensor& output, const Tensor& input, const char* name) {
  const auto range = [](const Tensor& t) {
    const auto first = reinterpret_cast<uintptr_t>(t.const_data_ptr());
    return std::pair(first, first + static_cast<uintptr_t>(t.numel()) * t.element_size());
  };
  const auto [first, last] = range(input);
  const auto [out_first, out_last] = range(output);
  STD_TORCH_CHECK(last <= out_first || out_last <= first || first == last || out_first == out_last, op,
                  ": expected an output apart from ", name, ", got overlapping memory.");
}

}  // namespace ntkfast
