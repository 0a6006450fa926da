#include "turn.h"

#include "panel_vectors.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

template <class T, core::Activation A, int kF, int kM>
void turn_vectors(const Turn<T>& turn, T* z, Columns columns, Points points) {
  const Epilogue<T>& e = turn.epilogue;
  const Layer<T>&layer = *e.layer, &last = *turn.last;
  const Group<T>& group = *e.tile->group;
  const Stack<T> zbar = e.to, q = turn.q;
  const core::ActivationParams<T> params = layer.activation_params;
  const auto F = count_of<kF>(group.directions);
  const auto M = count_of<kM>(group.collapsed);
  const int64_t channel = e.channel, row = e.row, omega_stride = group.omega_stride;
  const core::Seeds<T> seed = core::seeds_of<T>(*e.component, e.tile->first);
  const T* const omegas = group.omega + e.tile->first * omega_stride;
  for_each_vector<T>(columns, [&](int64_t v, int64_t width) {
    const int64_t column = columns.first + v;
    const Vec<T> bias = layer.bias ? load_up_to(layer.bias + column, width) * layer.bias_scale : Vec<T>{};
    const Vec<T> weight = load_up_to(last.weight + column, width) * last.weight_scale;
    keep_values<T, A>(z + v, row, bias, params, points);
    for (int64_t i = points.first; i < points.first + points.count; ++i) {
      const T *zi = z + i * row + v, *omega = omegas + i * omega_stride;
      T* to = zbar.data + i * zbar.row + column;
      const auto read_z = [&](int c) { return load<T>(zi + c * channel); };
      const auto read_omega = [&](int m, int k) { return omega[m * F + k]; };
      const core::Sigma<Vec<T>> sigma = sigma_of<T, A>(load<T>(zi), params);
      Vec<T> gradient{};
      core::push_forward(sigma, F, M, read_z, [&](int c, Vec<T> h) { gradient += seed(c, i, 0) * h; }, read_omega);
      store<T>(q.data + i * q.row + column, gradient);
      core::pull_back(
          sigma, F, M, read_z, [&](int c) { return seed(c, i, 0) * weight; },
          [&](int c, Vec<T> x) { store<T>(to + c * zbar.channel, x); }, read_omega);
    }
  });
}

template <class T>
struct TurnOf {
  template <core::Activation A, int F, int M>
  struct With {
    static constexpr TurnFunction<T> value = turn_vectors<T, A, F, M>;
  };
};

}  // namespace

template <class T>
TurnFunction<T> turn_function(const Turn<T>& turn) {
  const Epilogue<T>& e = turn.epilogue;
  const Group<T>& jet = *e.tile->group;
  return function_of<TurnFunction<T>, TurnOf<T>::template With>(e.layer->activation, jet.directions, jet.collapsed);
}

template TurnFunction<float> turn_function(const Turn<float>&);
template TurnFunction<double> turn_function(const Turn<double>&);

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
