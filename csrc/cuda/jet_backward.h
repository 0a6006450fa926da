// Backward sweep on a CUDA device, one launch a layer or, of a small network (small_sweep.h), one in all: D from the
// seeds and the stash of the forward sweep, down to the first layer whose parameters the Jacobian contains. Components
// have at most kMaxTableChannels channels (limits.h).
#pragma once

#include "../core/params.h"

namespace ntkfast::cuda {

int jet_backward(const Sweep<float>& sweep, void* stream);
int jet_backward(const Sweep<double>& sweep, void* stream);

}  // namespace ntkfast::cuda
