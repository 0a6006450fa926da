// C = A B: the dense product that the sweeps are made of, alone, so that their time can be held against it.
#pragma once

#include "../core/gemm.h"
#include "dispatch.h"

NTKFAST_CPU_OP(gemm, Gemm)
