// Where a CUDA kernel of csrc/cuda is launched: on the tensor's device, on torch's current stream of it.
#pragma once

#ifdef NTKFAST_CUDA

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include "../cuda/error.h"

// Part of every CUDA libtorch; weak, so that the same binary loads beside a CPU libtorch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace ntkfast {

// Calls launch(stream), which returns an error code of csrc/cuda, and turns a failure into an exception.
template <class Launch>
void on_current_stream(const torch::stable::Tensor& tensor, const char* op, const Launch& launch) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, op, ": expected a torch with CUDA, got one without.");
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  const int code = launch(stream);
  STD_TORCH_CHECK(code == 0, op, ": the CUDA launch failed: ", cuda::error_message(code), ".");
}

}  // namespace ntkfast

#endif
