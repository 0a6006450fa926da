// Scratch memory that a thread keeps between calls: asking the system for the same megabytes every time costs a page
// fault for every 4 KB of them.
#pragma once

#include <cstddef>

namespace ntkfast {

// Memory aligned to a cache line. Given back in the opposite order, by the thread that took it. Throws std::bad_alloc.
void* take_memory(std::size_t bytes);
void give_back_memory(void* memory, std::size_t bytes);

}  // namespace ntkfast
