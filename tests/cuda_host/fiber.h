// Fibers: a stack each, and a switch between them that costs a few nanoseconds (no system call).
//
// CUDA_HOST_UCONTEXT, and every processor but x86-64, takes the C library's swapcontext, which is slower.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(CUDA_HOST_UCONTEXT)
#define CUDA_HOST_UCONTEXT
#endif

#if defined(CUDA_HOST_UCONTEXT)
#include <ucontext.h>
#else
// Saves the registers that a call preserves and the stack pointer in *from, and goes on where `to` was saved.
extern "C" void cuda_host_switch(void** from, void* to);
asm(R"(.text
.weak cuda_host_switch
.type cuda_host_switch,@function
cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_host_switch, .-cuda_host_switch
)");
#endif

namespace cuda_host {

[[noreturn]] inline void fail(const char* what, const char* first = "", const char* second = "") {
  std::fprintf(stderr, "cuda_host: %s%s%s%s\n", what, first, *second ? " and " : "", second);
  std::abort();
}

// A point of execution that can be left and resumed: a fiber's, or the scheduler's own (which has no stack of ours).
struct Context {
#if defined(CUDA_HOST_UCONTEXT)
  ucontext_t saved;
#else
  void* saved = nullptr;
#endif
  const void* stack = nullptr;  // lowest address, and size
  size_t stack_size = 0;
  void* sanitizer = nullptr;
};

// Prepares `context` to run `entry`, which never returns, on the given stack.
inline void prepare(Context& context, char* stack, size_t size, void (*entry)()) {
  context.stack = stack;
  context.stack_size = size;
  context.sanitizer = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, size);  // red zones of the fiber that had this stack before
#endif
#if defined(CUDA_HOST_UCONTEXT)
  getcontext(&context.saved);
  context.saved.uc_stack.ss_sp = stack;
  context.saved.uc_stack.ss_size = size;
  context.saved.uc_link = nullptr;
  makecontext(&context.saved, entry, 0);
#else
  // What cuda_host_switch pops: six registers, then the address it returns to; above it the return address of `entry`.
  void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack) + size) & ~uintptr_t(15));
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.saved = top;
#endif
}

// First thing that runs after a switch. `from` learns the stack bounds that only the sanitizer knows.
inline void arrived([[maybe_unused]] Context& here, [[maybe_unused]] Context& from) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(here.sanitizer, &from.stack, &from.stack_size);
#endif
}

// Leaves `from` for `to`; returns when someone switches back. `last`: `from` is never resumed.
inline void switch_to(Context& from, Context& to, [[maybe_unused]] bool last = false) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.sanitizer, to.stack, to.stack_size);
#endif
#if defined(CUDA_HOST_UCONTEXT)
  swapcontext(&from.saved, &to.saved);
#else
  cuda_host_switch(&from.saved, to.saved);
#endif
  arrived(from, to);
}

// Stacks for the fibers of a block, mapped once; pages are taken only where touched.
class Stacks {
 public:
  explicit Stacks(size_t count) : bytes_(count * kBytes) {
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stacks of a block");
    memory_ = static_cast<char*>(memory);
  }
  ~Stacks() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory_, bytes_);
#endif
    munmap(memory_, bytes_);
  }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  char* operator[](size_t i) const { return memory_ + i * kBytes; }
  static constexpr size_t kBytes = 128 * 1024;

 private:
  char* memory_;
  size_t bytes_;
};

}  // namespace cuda_host
