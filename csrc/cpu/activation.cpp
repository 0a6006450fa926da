#include "activation.h"

#include "../core/faa_di_bruno.h"
#include "elementary.h"
#include "parallel.h"
#include "vector.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

constexpr int64_t kElementsPerTask = 8192;

// One vector of elements at p = i·w + j of every channel; `read` and `write` know whether it is a partial one.
template <Pass P, core::Activation A, class T, class Read, class Write>
NTKFAST_INLINE void vector_at(const core::ActivationJet<T>& jet, int64_t p, const T* omega, const Read& read,
                              const Write& write) {
  const Vec<T> z0 = read(jet.z + p);
  const core::Sigma<Vec<T>> s = core::sigma<A>(z0, core::base<A, Elementary>(z0, jet.params), jet.params);
  const auto z = [&](int c) { return read(jet.z + p + c * jet.channel_stride); };
  const auto out = [&](int c, Vec<T> value) { write(jet.out + p + c * jet.channel_stride, value); };
  const auto weight = [&](int m, int k) { return omega[m * jet.directions + k]; };
  if constexpr (P == Pass::forward) {
    core::push_forward(s, jet.directions, jet.collapsed, z, out, weight);
  } else {
    const auto g = [&](int c) { return read(jet.g + p + c * jet.channel_stride); };
    core::pull_back(s, jet.directions, jet.collapsed, z, g, out, weight);
  }
}

// Elements first … last − 1, which share their weights ω.
template <Pass P, core::Activation A, class T>
void run(const core::ActivationJet<T>& jet, int64_t first, int64_t last, const T* omega) {
  int64_t p = first;
  for (; p + kLanes<T> <= last; p += kLanes<T>)
    vector_at<P, A>(jet, p, omega, [](const T* at) { return load<T>(at); }, [](T* at, Vec<T> v) { store<T>(at, v); });
  if (p == last) return;
  const int rest = static_cast<int>(last - p);
  vector_at<P, A>(
      jet, p, omega, [rest](const T* at) { return load_partial<T>(at, rest); },
      [rest](T* at, Vec<T> v) { store_partial<T>(at, v, rest); });
}

// Where all points share their weights the elements are one run, else a run is one point's features.
template <Pass P, core::Activation A, class T>
void run_points(const core::ActivationJet<T>& jet, int64_t first, int64_t last) {
  if (jet.omega_stride == 0) return run<P, A>(jet, first * jet.w, last * jet.w, jet.omega);
  for (int64_t i = first; i < last; ++i) run<P, A>(jet, i * jet.w, (i + 1) * jet.w, jet.omega + i * jet.omega_stride);
}

// 40 instantiations a level: {forward, backward} × {float, double} × 10 activations.
template <Pass P, class T>
void run_jet(const core::ActivationJet<T>& jet, const Parallel& parallel) {
  if (jet.n == 0 || jet.w == 0) return;
  const int64_t points = jet.w < kElementsPerTask ? kElementsPerTask / jet.w : 1;
  core::visit_activation(jet.activation, [&](auto activation) {
    for_each_task(parallel, (jet.n + points - 1) / points, [&](int64_t task, int) {
      const int64_t first = task * points, last = first + points;
      run_points<P, decltype(activation)::value>(jet, first, last < jet.n ? last : jet.n);
    });
  });
}

}  // namespace

template <class T>
void activation_forward(const core::ActivationJet<T>& jet, const Parallel& parallel) {
  run_jet<Pass::forward>(jet, parallel);
}

template <class T>
void activation_backward(const core::ActivationJet<T>& jet, const Parallel& parallel) {
  run_jet<Pass::backward>(jet, parallel);
}

}  // namespace NTKFAST_ISA
}  // namespace ntkfast

NTKFAST_INSTANTIATE(activation_forward, core::ActivationJet)
NTKFAST_INSTANTIATE(activation_backward, core::ActivationJet)
