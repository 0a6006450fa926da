// Rows, gradient and, where asked for, the diagonal of the Gram matrix on a CUDA device, for rows that are linear in the
// output channels. The stacks of the sweeps lie in a workspace.
#pragma once

#include "../cpu/loss_gradient.h"

namespace ntkfast::cuda {

int64_t loss_gradient_workspace(const LossGradient<float>& p);
int64_t loss_gradient_workspace(const LossGradient<double>& p);

int loss_gradient(const LossGradient<float>& p, float* workspace, void* stream);
int loss_gradient(const LossGradient<double>& p, double* workspace, void* stream);

}  // namespace ntkfast::cuda
