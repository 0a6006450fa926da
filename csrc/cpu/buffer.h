// Scratch memory of one call, aligned to a vector, released with the scope.
#pragma once

#include <cstdint>

#include "../workspace.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : bytes_(count > 0 ? static_cast<std::size_t>(count) * sizeof(T) : 0) {
    if (bytes_ > 0) data_ = static_cast<T*>(take_memory(bytes_));
  }
  ~Buffer() {
    if (bytes_ > 0) give_back_memory(data_, bytes_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_ = nullptr;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
