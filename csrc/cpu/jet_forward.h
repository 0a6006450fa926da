// Forward sweep: output channels, and the stacks A and Z where the caller gives them.
#pragma once

#include "dispatch.h"

NTKFAST_CPU_OP(jet_forward, Sweep)
