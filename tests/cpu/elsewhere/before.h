// Before any source: the base level as a processor that is no x86-64 compiles it. The system's own headers come first, as
// they must agree with this machine's; what says x86 is then forgotten, and this folder's headers of intrinsics are errors.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#undef __x86_64__
#undef __x86_64
#undef __amd64__
#undef __amd64
#undef __MMX__
#undef __SSE__
#undef __SSE2__
