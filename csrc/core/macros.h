// NTK_HD marks what compiles for host and device alike; NTK_HD_VISITOR, before "template", what also calls a function
// that it is given: of the host when called on the host, of the device on the device.
#pragma once

#if defined(__CUDACC__)
#define NTK_HD __host__ __device__ __forceinline__
#define NTK_HD_VISITOR _Pragma("nv_exec_check_disable")
#else
#define NTK_HD inline
#define NTK_HD_VISITOR
#endif
