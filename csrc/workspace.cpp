#include "workspace.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace ntkfast {
namespace {

constexpr std::size_t kLine = 64, kHugePage = std::size_t{2} << 20;
constexpr std::size_t kMostKept = std::size_t{64} << 20;  // what needs more than that can afford its page faults

std::size_t rounded_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

void* allocate(std::size_t alignment, std::size_t bytes) {
  void* memory = std::aligned_alloc(alignment, rounded_up(bytes, alignment));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

// A stack of what is in use. What does not fit comes from the system; when all is given back the stack grows to what
// would have been enough.
class Stack {
 public:
  Stack() = default;
  ~Stack() {
    std::free(base_);
    base_ = nullptr;  // whoever comes after this thread's end is served from outside
    capacity_ = 0;
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  void* take(std::size_t bytes) {
    const bool fits = used_ + bytes <= capacity_;
    void* memory = fits ? base_ + used_ : allocate(kLine, bytes);
    (fits ? used_ : outside_) += bytes;
    most_ = used_ + outside_ > most_ ? used_ + outside_ : most_;
    return memory;
  }

  void give_back(void* memory, std::size_t bytes) {
    const bool inside = memory >= base_ && memory < base_ + capacity_;
    if (!inside) std::free(memory);
    (inside ? used_ : outside_) -= bytes;
    if (used_ + outside_ > 0) return;
    if (most_ > capacity_ && most_ <= kMostKept) grow();
    most_ = 0;
  }

 private:
  void grow() {
    std::free(base_);
    base_ = nullptr;
    capacity_ = 0;
    const std::size_t size = rounded_up(most_, kHugePage);
    base_ = static_cast<char*>(std::aligned_alloc(kHugePage, size));
    if (base_ == nullptr) return;
    capacity_ = size;
    madvise(base_, size, MADV_HUGEPAGE);
  }

  char* base_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0, outside_ = 0, most_ = 0;
};

thread_local Stack stack;

}  // namespace

void* take_memory(std::size_t bytes) { return stack.take(rounded_up(bytes, kLine)); }

void give_back_memory(void* memory, std::size_t bytes) { stack.give_back(memory, rounded_up(bytes, kLine)); }

}  // namespace ntkfast
