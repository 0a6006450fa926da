#include "../core/omega.h"
#include "panel_vectors.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// A write of a vector might change whatever is in memory, as far as the compiler knows: what a loop over points needs
// of sizes and places stands in local variables.
template <class T, core::Activation A, int kF, int kM>
void push_vectors(const Epilogue<T>& e, T* z, Columns columns, Points points) {
  const Layer<T>& layer = *e.layer;
  const Group<T>& group = *e.tile->group;
  const Stack<T> h = e.to;
  const core::ActivationParams<T> params = layer.activation_params;
  const auto F = count_of<kF>(group.directions);
  const auto M = count_of<kM>(group.collapsed);
  const int64_t channel = e.channel, row = e.row, omega_stride = group.omega_stride;
  const T* const omegas = group.omega + e.tile->first * omega_stride;
  for_each_vector<T>(columns, [&](int64_t v, int64_t width) {
    const int64_t column = columns.first + v;
    const Vec<T> bias = layer.bias ? load_up_to(layer.bias + column, width) * layer.bias_scale : Vec<T>{};
    keep_values<T, A>(z + v, row, bias, params, points);
    for (int64_t i = points.first; i < points.first + points.count; ++i) {
      const T* zi = z + i * row + v;
      T* hi = h.data + i * h.row + column;
      const T* omega = omegas + i * omega_stride;
      core::push_forward(
          sigma_of<T, A>(load<T>(zi), params), F, M, [&](int c) { return load<T>(zi + c * channel); },
          [&](int c, Vec<T> x) { store<T>(hi + c * h.channel, x); }, [&](int m, int k) { return omega[m * F + k]; });
    }
  });
}

// Where channel c of a component stands in the stash of a point, and ω_mk in the group's: found once where their
// numbers are known, looked up each time otherwise.
template <class T, int kF, int kM>
class ChannelPlaces {
 public:
  explicit ChannelPlaces(const Epilogue<T>& e)
      : component_(*e.component), group_directions_(e.tile->group->directions), stride_(e.stash.channel) {
    if constexpr (kKnown) {
      for (int c = 0; c < 1 + kF + kM; ++c) stash_[c] = component_.channel[c] * stride_;
      for (int m = 0; m < kM; ++m)
        for (int k = 0; k < kF; ++k) omega_[m * kF + k] = place_of_omega(m, k);
    }
  }
  int64_t stash(int c) const {
    if constexpr (kKnown) return stash_[c];
    else return component_.channel[c] * stride_;
  }
  int64_t omega(int m, int k) const {
    if constexpr (kKnown) return omega_[m * kF + k];
    else return place_of_omega(m, k);
  }

 private:
  int64_t place_of_omega(int m, int k) const {
    return core::omega_place(component_.channel, component_.directions, group_directions_, m, k);
  }

  static constexpr bool kKnown = kF != kAny;
  const Component& component_;
  int group_directions_;
  int64_t stride_;
  int64_t stash_[kKnown ? 1 + kF + kM : 1], omega_[kKnown ? kF * kM + 1 : 1];
};

template <class T, core::Activation A, int kF, int kM>
void pull_vectors(const Epilogue<T>& e, T* g, Columns columns, Points points) {
  const Group<T>& group = *e.tile->group;
  const Stack<T> stash = e.stash, zbar = e.to;
  const core::ActivationParams<T> params = e.layer->activation_params;
  const auto F = count_of<kF>(e.component->directions);
  const auto M = count_of<kM>(e.component->collapsed);
  const ChannelPlaces<T, kF, kM> places(e);
  const int64_t channel = e.channel, row = e.row, omega_stride = group.omega_stride;
  const T* const omegas = group.omega + e.tile->first * omega_stride;
  for_each_vector<T>(columns, [&](int64_t v, int64_t) {
    const int64_t column = columns.first + v;
    for (int64_t i = points.first; i < points.first + points.count; ++i) {
      const T* gi = g + i * row + v;
      const T* zi = stash.data + i * stash.row + column;
      T* to = zbar.data + i * zbar.row + column;
      const T* omega = omegas + i * omega_stride;
      core::pull_back(
          sigma_of<T, A>(load<T>(zi), params), F, M, [&](int c) { return load<T>(zi + places.stash(c)); },
          [&](int c) { return load<T>(gi + c * channel); },
          [&](int c, Vec<T> x) { store<T>(to + c * zbar.channel, x); },
          [&](int m, int k) { return omega[places.omega(m, k)]; });
    }
  });
}

template <class T>
struct Push {
  template <core::Activation A, int F, int M>
  struct With {
    static constexpr PanelFunction<T> value = push_vectors<T, A, F, M>;
  };
};

template <class T>
struct Pull {
  template <core::Activation A, int F, int M>
  struct With {
    static constexpr PanelFunction<T> value = pull_vectors<T, A, F, M>;
  };
};

}  // namespace

template <class T>
PanelFunction<T> push_function(const Epilogue<T>& e) {
  const Group<T>& jet = *e.tile->group;
  return function_of<PanelFunction<T>, Push<T>::template With>(e.layer->activation, jet.directions, jet.collapsed);
}

template <class T>
PanelFunction<T> pull_function(const Epilogue<T>& e) {
  const Component& jet = *e.component;
  return function_of<PanelFunction<T>, Pull<T>::template With>(e.layer->activation, jet.directions, jet.collapsed);
}

template PanelFunction<float> push_function(const Epilogue<float>&);
template PanelFunction<double> push_function(const Epilogue<double>&);
template PanelFunction<float> pull_function(const Epilogue<float>&);
template PanelFunction<double> pull_function(const Epilogue<double>&);

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
