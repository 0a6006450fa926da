// Scratch memory of one call, aligned to a vector, released with the scope.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    if (count <= 0) return;
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
