// Backward sweep: cotangent stacks D of every component, from its seeds and the stash Z of a forward sweep.
#pragma once

#include "dispatch.h"

NTKFAST_CPU_OP(jet_backward, Sweep)
