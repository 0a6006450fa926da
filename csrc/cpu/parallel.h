// Tasks of unequal length on the slots of a Parallel: each slot takes the next task until none is left. Which slot runs
// a task is left to chance, so tasks write to disjoint memory and results do not depend on it.
#pragma once

#include <atomic>
#include <cstdint>

#include "dispatch.h"
#include "matrix_tiles.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Tasks may be numbered through several parts: part p has those from start[p] to start[p + 1] − 1.
inline int part_of_task(const int64_t* start, int64_t task) {
  int part = 0;
  while (task >= start[part + 1]) ++part;
  return part;
}

template <class Body>
void for_each_task(const Parallel& parallel, int64_t tasks, const Body& body) {
  struct Context {
    const Body* body;
    std::atomic<int64_t> next;
    int64_t tasks;
  } context{&body, {0}, tasks};
  const auto work = [](void* opaque, int slot) {
    Context& shared = *static_cast<Context*>(opaque);
    const MatrixTiles tiles;
    for (int64_t task; (task = shared.next.fetch_add(1, std::memory_order_relaxed)) < shared.tasks;)
      (*shared.body)(task, slot);
  };
  if (tasks <= 0) return;
  parallel.run(tasks < parallel.threads ? static_cast<int>(tasks) : parallel.threads, work, &context);
}

// Every slot once: for work whose share is fixed, since results depend on which slot does it.
template <class Body>
void for_each_slot(const Parallel& parallel, const Body& body) {
  const auto work = [](void* opaque, int slot) {
    const MatrixTiles tiles;
    (*static_cast<const Body*>(opaque))(slot);
  };
  parallel.run(parallel.threads, work, const_cast<Body*>(&body));
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
