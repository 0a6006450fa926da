// The activation jet on a CUDA device. Needs no CUDA toolkit to include: a stream is a cudaStream_t as void*, and a
// returned code is a cudaError_t as int, 0 for success (cudaErrorInvalidValue for an activation that does not exist).
#pragma once

#include "../core/activation_jet.h"

namespace ntkfast::cuda {

int activation_forward(const core::ActivationJet<float>& jet, void* stream);
int activation_forward(const core::ActivationJet<double>& jet, void* stream);
int activation_backward(const core::ActivationJet<float>& jet, void* stream);
int activation_backward(const core::ActivationJet<double>& jet, void* stream);

}  // namespace ntkfast::cuda
