// The elementary functions of one instruction-set level over arrays, with C linkage, for test_elementary.py.
// The last, incomplete vector goes through load_partial and store_partial.
#include "elementary.h"

namespace {

using namespace ntkfast::NTKFAST_ISA;

template <class T, class F>
void over(const T* x, T* y, long n, F f) {
  long i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) store(y + i, f(load(x + i)));
  if (i < n) store_partial(y + i, f(load_partial(x + i, int(n - i))), int(n - i));
}

}  // namespace

#define NTKFAST_EXPORT(name)                                          \
  extern "C" void name##_float(const float* x, float* y, long n) {    \
    over(x, y, n, [](Vec<float> v) { return Elementary::name(v); });  \
  }                                                                   \
  extern "C" void name##_double(const double* x, double* y, long n) { \
    over(x, y, n, [](Vec<double> v) { return Elementary::name(v); }); \
  }

NTKFAST_EXPORT(tanh)
NTKFAST_EXPORT(exp)
NTKFAST_EXPORT(log1p)
NTKFAST_EXPORT(sin)
NTKFAST_EXPORT(cos)
NTKFAST_EXPORT(erf)

extern "C" int vector_bytes() { return NTKFAST_VECTOR_BYTES; }
extern "C" float sum_float(const float* x) { return sum(load(x)); }
extern "C" double sum_double(const double* x) { return sum(load(x)); }
extern "C" bool any_negative_float(const float* x) { return any(load(x) < 0.0f); }
extern "C" bool any_negative_double(const double* x) { return any(load(x) < 0.0); }
