// Diagonal of the Gram matrix, layer by layer, in one streaming sweep: nothing but a tile is ever kept.
#pragma once

#include "dispatch.h"

NTKFAST_CPU_OP(diag, Sweep)
