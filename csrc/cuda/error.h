// The sentence behind an error code of this folder.
#pragma once

namespace ntkfast::cuda {

const char* error_message(int code);

}  // namespace ntkfast::cuda
