#include "activation_panel.h"

#include "../core/activation_jet.h"
#include "../core/faa_di_bruno.h"
#include "elementary.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Loops over channels unroll for the commonest jets: value; value and a first derivative; two directions and a
// collapsed channel.
template <class Body>
void with_counts(int directions, int collapsed, const Body& body) {
  using std::integral_constant;
  if (directions == 0 && collapsed == 0) return body(integral_constant<int, 0>{}, integral_constant<int, 0>{});
  if (directions == 0 && collapsed == 1) return body(integral_constant<int, 0>{}, integral_constant<int, 1>{});
  if (directions == 1 && collapsed == 1) return body(integral_constant<int, 1>{}, integral_constant<int, 1>{});
  if (directions == 2 && collapsed == 1) return body(integral_constant<int, 2>{}, integral_constant<int, 1>{});
  body(directions, collapsed);
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

// h and stash from pre-activations z (C, count, kPanel), which lack the bias.
template <class T, core::Activation A, class Dirs, class Collapsed>
void push_vectors(const Layer<T>& layer, const Tile<T>& tile, const T* z, Columns columns, Stack<T> h, Stack<T> stash,
                  Dirs F, Collapsed M) {
  const Group<T>& group = *tile.group;
  const int64_t channel = tile.count * kPanel<T>;
  for_each_vector<T>(columns, [&](auto read, auto write, int64_t v) {
    const int64_t column = columns.first + v;
    const Vec<T> bias = layer.bias ? read(layer.bias + column) * layer.bias_scale : Vec<T>{};
    for (int64_t i = 0; i < tile.count; ++i) {
      const T* zi = z + i * kPanel<T> + v;
      T* hi = h.data + i * h.row + column;
      const T* omega = group.omega + (tile.first + i) * group.omega_stride;
      const Vec<T> z0 = load<T>(zi) + bias;
      const core::Base<Vec<T>> base = core::base<A, Elementary>(z0, layer.activation_params);
      const core::Sigma<Vec<T>> s = core::sigma<A>(z0, base, layer.activation_params);
      core::push_forward(
          s, F, M, [&](int c) { return load<T>(zi + c * channel); },
          [&](int c, Vec<T> x) { write(hi + c * h.channel, x); }, [&](int m, int k) { return omega[m * F + k]; });
      if (stash.data == nullptr) continue;
      T* to = stash.data + i * stash.row + column;
      write(to, core::kStashesBase<A> ? base.a : z0);
      for (int c = 1; c < 1 + F + M; ++c) write(to + c * stash.channel, load<T>(zi + c * channel));
    }
  });
}

// z̄ from cotangents g (C_j, count, kPanel) of one component and the layer's stash.
template <class T, core::Activation A, class Dirs, class Collapsed>
void pull_vectors(const Layer<T>& layer, const Tile<T>& tile, const Component& component, const T* g, Columns columns,
                  Stack<T> stash, Stack<T> zbar, Dirs F, Collapsed M) {
  const Group<T>& group = *tile.group;
  const int* channel_of = component.channel;
  const int64_t channel = tile.count * kPanel<T>;
  for_each_vector<T>(columns, [&](auto read, auto write, int64_t v) {
    const int64_t column = columns.first + v;
    for (int64_t i = 0; i < tile.count; ++i) {
      const T* gi = g + i * kPanel<T> + v;
      const T* zi = stash.data + i * stash.row + column;
      T* to = zbar.data + i * zbar.row + column;
      const T* omega = group.omega + (tile.first + i) * group.omega_stride;
      const Vec<T> z0 = read(zi);
      core::Base<Vec<T>> base{z0, Vec<T>{}};
      if constexpr (!core::kStashesBase<A>) base = core::base<A, Elementary>(z0, layer.activation_params);
      const core::Sigma<Vec<T>> s = core::sigma<A>(z0, base, layer.activation_params);
      core::pull_back(
          s, F, M, [&](int c) { return read(zi + channel_of[c] * stash.channel); },
          [&](int c) { return load<T>(gi + c * channel); }, [&](int c, Vec<T> x) { write(to + c * zbar.channel, x); },
          [&](int m, int k) {
            return omega[(channel_of[1 + F + m] - 1 - group.directions) * group.directions + channel_of[1 + k] - 1];
          });
    }
  });
}

}  // namespace

template <class T>
void push_panel(const Layer<T>& layer, const Tile<T>& tile, const T* z, Columns columns, Stack<T> h, Stack<T> stash) {
  core::visit_activation(layer.activation, [&](auto tag) {
    with_counts(tile.group->directions, tile.group->collapsed, [&](auto F, auto M) {
      push_vectors<T, decltype(tag)::value>(layer, tile, z, columns, h, stash, F, M);
    });
  });
}

template <class T>
void pull_panel(const Layer<T>& layer, const Tile<T>& tile, const Component& component, const T* g, Columns columns,
                Stack<T> stash, Stack<T> zbar) {
  core::visit_activation(layer.activation, [&](auto tag) {
    with_counts(component.directions, component.collapsed, [&](auto F, auto M) {
      pull_vectors<T, decltype(tag)::value>(layer, tile, component, g, columns, stash, zbar, F, M);
    });
  });
}

template void push_panel<float>(const Layer<float>&, const Tile<float>&, const float*, Columns, Stack<float>,
                                Stack<float>);
template void push_panel<double>(const Layer<double>&, const Tile<double>&, const double*, Columns, Stack<double>,
                                 Stack<double>);
template void pull_panel<float>(const Layer<float>&, const Tile<float>&, const Component&, const float*, Columns,
                                Stack<float>, Stack<float>);
template void pull_panel<double>(const Layer<double>&, const Tile<double>&, const Component&, const double*, Columns,
                                 Stack<double>, Stack<double>);

}  // namespace NTKFAST_ISA
}  // namespace ntkfast
