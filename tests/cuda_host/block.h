// One block of CUDA threads: its fibers, barriers, dynamic shared memory, and the scheduler that runs them in turn.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "fiber.h"

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set whenever a thread is resumed, so a thread always sees its own.
inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_host {

constexpr unsigned kWarp = warpSize;

class BlockRun;

struct Thread {
  Context context;
  BlockRun* block;
  unsigned number;  // linear, 0 … threads − 1
  uint3 index;
  bool done;
};

// Opens when all threads that still run have arrived. A thread that has returned is not waited for, as on the device.
struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;
  const char* place = nullptr;  // of the first thread to arrive

  void open() {
    arrived = 0;
    ++generation;
  }
  void leave() {
    if (--expected > 0 && arrived == expected) open();
  }
};

inline thread_local Thread* running = nullptr;

inline Thread& self() { return *running; }

class BlockRun {
 public:
  BlockRun(dim3 grid_size, dim3 block_size, size_t shared_bytes, std::function<void()> kernel)
      : dynamic_shared(shared_bytes),
        exchange(block_size.x * block_size.y * block_size.z),
        grid_size_(grid_size),
        block_size_(block_size),
        kernel_(std::move(kernel)),
        stacks_(exchange.size()),
        threads_(exchange.size()),
        warps_((exchange.size() + kWarp - 1) / kWarp) {}

  // Runs the block of this index from start to end.
  void run(uint3 index) {
    gridDim = grid_size_;
    blockDim = block_size_;
    blockIdx = index;
    start();
    const bool reverse = std::getenv("CUDA_HOST_REVERSE") != nullptr;
    while (all_.expected > 0) {
      progress_ = false;
      for (size_t i = 0; i < threads_.size(); ++i) {
        Thread& thread = threads_[reverse ? threads_.size() - 1 - i : i];
        if (thread.done) continue;
        running = &thread;
        threadIdx = thread.index;
        switch_to(scheduler_, thread.context);
      }
      if (!progress_) fail("deadlock: no thread of a block can go on, a barrier is not reached by all of them");
    }
  }

  // The running thread waits until all threads of its block (or warp) that still run are here.
  void wait(Barrier& barrier, const char* place) {
    Thread& thread = self();
    progress_ = true;
    if (barrier.arrived == 0) barrier.place = place;
    if (barrier.place != place && std::strcmp(barrier.place, place) != 0)
      fail("barrier divergence: threads wait at ", barrier.place, place);
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == barrier.expected) return barrier.open();
    while (barrier.generation == generation) switch_to(thread.context, scheduler_);
  }

  Barrier& all() { return all_; }
  Barrier& warp() { return warps_[self().number / kWarp]; }

  std::vector<char> dynamic_shared;
  std::vector<uint64_t> exchange;  // what each thread offers in a warp operation

 private:
  void start() {
    std::fill(dynamic_shared.begin(), dynamic_shared.end(), char(0xff));  // NaN
    const unsigned count = unsigned(threads_.size());
    all_ = Barrier{count};
    for (unsigned w = 0; w < warps_.size(); ++w) warps_[w] = Barrier{std::min(kWarp, count - w * kWarp)};
    for (unsigned i = 0; i < count; ++i) {
      const unsigned x = block_size_.x, y = block_size_.y;
      Thread& thread = threads_[i];
      thread.block = this;
      thread.number = i;
      thread.index = {i % x, i / x % y, i / x / y};
      thread.done = false;
      prepare(thread.context, stacks_[i], Stacks::kBytes, thread_main);
    }
  }

  static void thread_main() {
    Thread& thread = self();
    BlockRun& block = *thread.block;
    arrived(thread.context, block.scheduler_);
    block.kernel_();
    thread.done = true;
    block.progress_ = true;
    block.all_.leave();
    block.warps_[thread.number / kWarp].leave();
    switch_to(thread.context, block.scheduler_, true);
    fail("a finished thread was resumed");
  }

  dim3 grid_size_, block_size_;
  std::function<void()> kernel_;
  Stacks stacks_;
  std::vector<Thread> threads_;
  std::vector<Barrier> warps_;
  Barrier all_;
  Context scheduler_;
  bool progress_ = false;
};

inline BlockRun& block() { return *self().block; }

inline void wait_for_block(const char* place) { block().wait(block().all(), place); }

}  // namespace cuda_host
