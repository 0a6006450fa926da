// The Gram matrix K = J J'ᵀ of stored factors.
#pragma once

#include "../core/gram.h"
#include "dispatch.h"

NTKFAST_CPU_OP(gram, Gram)
