// Jᵀx from stored factors, layer by layer.
#pragma once

#include "../core/vjp.h"
#include "dispatch.h"

NTKFAST_CPU_OP(vjp, Vjp)
