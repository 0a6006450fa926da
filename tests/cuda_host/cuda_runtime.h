// What `#include <cuda_runtime.h>` finds when a .cu file is compiled for the host.
#pragma once

#include "cuda_host.h"
