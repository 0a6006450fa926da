// The sentence behind an error code of this folder.
#pragma once

namespace ntkfast::cuda {

const char* error_message(int code);

// Waits for a stream and returns what went wrong on it.
int synchronize(void* stream);

}  // namespace ntkfast::cuda
