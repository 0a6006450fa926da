// The elementary functions that core/activation.h asks for, by the device's own library.
#pragma once

#include <math.h>

#include "../core/macros.h"

namespace ntkfast::cuda {

struct Elementary {
  template <class T>
  NTK_HD static T tanh(T x) {
    return ::tanh(x);
  }
  template <class T>
  NTK_HD static T exp(T x) {
    return ::exp(x);
  }
  template <class T>
  NTK_HD static T sin(T x) {
    return ::sin(x);
  }
  template <class T>
  NTK_HD static T cos(T x) {
    return ::cos(x);
  }
  template <class T>
  NTK_HD static T erf(T x) {
    return ::erf(x);
  }
  template <class T>
  NTK_HD static T log1p(T x) {
    return ::log1p(x);
  }
};

}  // namespace ntkfast::cuda
