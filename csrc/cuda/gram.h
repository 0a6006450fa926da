// The Gram matrix K = J J'ᵀ of stored factors on a CUDA device. Every layer takes the structured form: which layers the
// caller would have explicit, and in what chunks, is not looked at.
#pragma once

#include "../cpu/gram.h"

namespace ntkfast::cuda {

int gram(const Gram<float>& p, void* stream);
int gram(const Gram<double>& p, void* stream);

}  // namespace ntkfast::cuda
