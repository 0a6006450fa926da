// NTK_HD marks what compiles for host and device alike.
#pragma once

#if defined(__CUDACC__)
#define NTK_HD __host__ __device__ __forceinline__
#else
#define NTK_HD inline
#endif
