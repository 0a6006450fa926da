// J v from stored factors.
#pragma once

#include "../core/jvp.h"
#include "dispatch.h"

NTKFAST_CPU_OP(jvp, Jvp)
