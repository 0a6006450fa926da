// The activation jet: forward push of one activation on all channels of a jet, and its pull-back.
#pragma once

#include "../core/activation_jet.h"
#include "dispatch.h"

NTKFAST_CPU_OP(activation_forward, core::ActivationJet)
NTKFAST_CPU_OP(activation_backward, core::ActivationJet)
