// Rows that are linear in the output channels, and what is asked for of their gradient, their diagonal of the Gram
// matrix and their factors, all in one sweep: the seeds are known beforehand, so that nothing waits for the outputs.
#pragma once

#include "../core/linear_sweep.h"
#include "dispatch.h"

NTKFAST_CPU_OP(linear_sweep, LinearSweep)
