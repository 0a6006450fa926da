// Where a CUDA kernel of csrc/cuda is launched: on the tensor's device, on torch's current stream of it.
//
// With NTKFAST_SYNC=1 in the environment every launch is waited for, so that an error on the device surfaces at its
// operator.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#ifdef NTKFAST_CUDA

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <cstdlib>
#include <cstring>

#include "../cuda/error.h"
#include "../cuda/limits.h"

// Part of every CUDA libtorch; weak, so that the same binary loads beside a CPU libtorch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace ntkfast {

// Calls launch(stream), which returns an error code of csrc/cuda, and turns a failure into an exception.
template <class Launch>
void on_current_stream(const char* op, const torch::stable::Tensor& tensor, const Launch& launch) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, op, ": expected a torch with CUDA, got one without.");
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  const int code = launch(stream);
  STD_TORCH_CHECK(code == 0, op, ": the CUDA launch failed: ", cuda::error_message(code), ".");
  const char* wait = std::getenv("NTKFAST_SYNC");
  if (wait == nullptr || std::strcmp(wait, "1") != 0) return;
  const int late = cuda::synchronize(stream);
  STD_TORCH_CHECK(late == 0, op, ": the CUDA kernel failed: ", cuda::error_message(late), ".");
}

// The largest component that a launch describes.
template <class T>
void check_channels(const char* op, const Sweep<T>& sweep) {
  const int channels = cuda::most_channels(sweep);
  STD_TORCH_CHECK(channels <= cuda::kMaxTableChannels, op, ": expected at most ", cuda::kMaxTableChannels,
                  " channels a component on CUDA, got ", channels, ".");
}

// Memory of torch's own allocator: it may be let go when the launches are queued, since only later work of the same
// stream gets it again.
inline torch::stable::Tensor workspace_like(const torch::stable::Tensor& like, int64_t size,
                                            torch::headeronly::ScalarType dtype) {
  return torch::stable::new_empty(like, {size}, dtype);
}

}  // namespace ntkfast

#endif

namespace ntkfast {

[[noreturn]] inline void refuse_cuda(const char* op) {
  STD_TORCH_CHECK(false, op, ": expected tensors on the CPU, as this build has no CUDA, got tensors on a GPU.");
  __builtin_unreachable();
}

}  // namespace ntkfast
