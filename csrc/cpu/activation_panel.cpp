#include "activation_panel.h"

#include "../core/activation_jet.h"
#include "../core/faa_di_bruno.h"
#include "elementary.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

constexpr int kAny = -1;

// Loops over channels unroll where their number N is known.
template <int N>
auto count_of(int number) {
  if constexpr (N == kAny) return number;
  else return std::integral_constant<int, N>{};
}

// Function<F, M>::value for the commonest jets: value; value and a first derivative; one, two or three directions and a
// collapsed channel; and for all others.
template <template <int, int> class Function>
auto function_of_counts(int directions, int collapsed) {
  if (directions == 0 && collapsed == 0) return Function<0, 0>::value;
  if (directions == 0 && collapsed == 1) return Function<0, 1>::value;
  if (directions == 1 && collapsed == 1) return Function<1, 1>::value;
  if (directions == 2 && collapsed == 1) return Function<2, 1>::value;
  if (directions == 3 && collapsed == 1) return Function<3, 1>::value;
  return Function<kAny, kAny>::value;
}

// Runs body(load, store, vector offset) for each vector of the panel; the last one may be partial.
template <class T, class Body>
void for_each_vector(Columns columns, const Body& body) {
  for (int64_t v = 0; v < columns.width; v += kLanes<T>) {
    const int lanes = static_cast<int>(columns.width - v);
    if (lanes >= kLanes<T>) body([](const T* p) { return load<T>(p); }, [](T* p, Vec<T> x) { store<T>(p, x); }, v);
    else
      body([lanes](const T* p) { return load_partial<T>(p, lanes); },
           [lanes](T* p, Vec<T> x) { store_partial<T>(p, x, lanes); }, v);
  }
}

// σ and its derivatives from what is kept of the value: z₀, or what the elementary function gave.
template <class T, core::Activation A>
core::Sigma<Vec<T>> sigma_of(Vec<T> kept, core::ActivationParams<T> params) {
  core::Base<Vec<T>> base{kept, Vec<T>{}};
  if constexpr (!core::kStashesBase<A>) base = core::base<A, Elementary>(kept, params);
  return core::sigma<A>(kept, base, params);
}

// What is kept takes the place of the values of all points before anything else: an elementary function is a long chain
// of operations, of which the processor has several under way only if little stands between them.
//
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
  for_each_vector<T>(columns, [&](auto read, auto write, int64_t v) {
    const int64_t column = columns.first + v;
    const Vec<T> bias = layer.bias ? read(layer.bias + column) * layer.bias_scale : Vec<T>{};
    for (int64_t i = points.first; i < points.first + points.count; ++i) {
      T* zi = z + i * row + v;
      Vec<T> kept = load<T>(zi) + bias;
      if constexpr (core::kStashesBase<A>) kept = core::base<A, Elementary>(kept, params).a;
      store<T>(zi, kept);
    }
    for (int64_t i = points.first; i < points.first + points.count; ++i) {
      const T* zi = z + i * row + v;
      T* hi = h.data + i * h.row + column;
      const T* omega = omegas + i * omega_stride;
      core::push_forward(
          sigma_of<T, A>(load<T>(zi), params), F, M, [&](int c) { return load<T>(zi + c * channel); },
          [&](int c, Vec<T> x) { write(hi + c * h.channel, x); }, [&](int m, int k) { return omega[m * F + k]; });
    }
  });
}

// ω_mk of a component's channels among the group's.
inline int64_t omega_place(const Component& component, int group_directions, int m, int k) {
  const int* channel = component.channel + 1;
  return (channel[component.directions + m] - 1 - group_directions) * group_directions + channel[k] - 1;
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
        for (int k = 0; k < kF; ++k) omega_[m * kF + k] = omega_place(component_, group_directions_, m, k);
    }
  }
  int64_t stash(int c) const {
    if constexpr (kKnown) return stash_[c];
    else return component_.channel[c] * stride_;
  }
  int64_t omega(int m, int k) const {
    if constexpr (kKnown) return omega_[m * kF + k];
    else return omega_place(component_, group_directions_, m, k);
  }

 private:
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
  for_each_vector<T>(columns, [&](auto read, auto write, int64_t v) {
    const int64_t column = columns.first + v;
    for (int64_t i = points.first; i < points.first + points.count; ++i) {
      const T* gi = g + i * row + v;
      const T* zi = stash.data + i * stash.row + column;
      T* to = zbar.data + i * zbar.row + column;
      const T* omega = omegas + i * omega_stride;
      core::pull_back(
          sigma_of<T, A>(read(zi), params), F, M, [&](int c) { return read(zi + places.stash(c)); },
          [&](int c) { return load<T>(gi + c * channel); }, [&](int c, Vec<T> x) { write(to + c * zbar.channel, x); },
          [&](int m, int k) { return omega[places.omega(m, k)]; });
    }
  });
}

template <class T, core::Activation A>
struct Push {
  template <int F, int M>
  struct With {
    static constexpr PanelFunction<T> value = push_vectors<T, A, F, M>;
  };
};

template <class T, core::Activation A>
struct Pull {
  template <int F, int M>
  struct With {
    static constexpr PanelFunction<T> value = pull_vectors<T, A, F, M>;
  };
};

}  // namespace

template <class T>
PanelFunction<T> push_function(const Epilogue<T>& e) {
  PanelFunction<T> function = nullptr;
  core::visit_activation(e.layer->activation, [&](auto tag) {
    function = function_of_counts<Push<T, decltype(tag)::value>::template With>(e.tile->group->directions,
                                                                                e.tile->group->collapsed);
  });
  return function;
}

template <class T>
PanelFunction<T> pull_function(const Epilogue<T>& e) {
  PanelFunction<T> function = nullptr;
  core::visit_activation(e.layer->activation, [&](auto tag) {
    function = function_of_counts<Pull<T, decltype(tag)::value>::template With>(e.component->directions,
                                                                                e.component->collapsed);
  });
  return function;
}

template PanelFunction<float> push_function(const Epilogue<float>&);
template PanelFunction<double> push_function(const Epilogue<double>&);
template PanelFunction<float> pull_function(const Epilogue<float>&);
template PanelFunction<double> pull_function(const Epilogue<double>&);

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
