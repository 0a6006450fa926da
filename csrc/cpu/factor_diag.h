// Diagonal of the Gram matrix, layer by layer, from stored factors A and D.
#pragma once

#include "dispatch.h"

NTKFAST_CPU_OP(factor_diag, Sweep)
