// What a launch of the fused sweep takes by value: all layers, and as many groups and components as fit (limits.h).
#pragma once

#include <vector>

#include "../core/seeds.h"
#include "small_layout.cuh"

namespace ntkfast::cuda {

template <class T>
struct SmallLayer {
  Layer<T> layer;
  T *A, *Z, *D;  // of the caller; null: not kept
};

// A group and some of its components, or, forward, the group alone.
template <class T>
struct SmallGroup {
  const T *points, *beta, *omega;
  int64_t beta_stride, omega_stride;
  int64_t n, row, first_tile;
  int directions, collapsed, tile_points;
  int components, first_component;  // in the table
  int stride;                       // residual rows of a point
};

template <class T>
struct SmallComponent {
  core::Seeds<T> seed;
  int64_t row, residual_row;
  int channels, directions, collapsed;
  int first_channel;  // in the table
};

template <class T>
struct SmallParams {
  Task task;
  int rows;  // of a tile
  int layers, forward_layers, first_active;
  T* out;        // forward: output channels
  double* diag;  // (layers, residual_rows)
  int64_t residual_rows, tiles;
  int count, components, channels;
  SmallLayout at;
  SmallLayer<T> layer[kMaxLayers];
  SmallGroup<T> group[kMaxGroups];
  SmallComponent<T> component[kMaxGroups];
  uint16_t channel[kMaxTableChannels];
};
static_assert(sizeof(SmallParams<double>) <= 4096, "kernels take at most 4 kB");

template <class T>
SmallParams<T> without_groups(const Sweep<T>& sweep, Task task, int rows) {
  SmallParams<T> p{};
  const int L = sweep.layers;
  p.task = task;
  p.rows = rows;
  p.layers = L;
  // The seeds are given: the diagonal asks for the outputs only if an activation has to be pulled back through.
  p.forward_layers = task == Task::diag && !sweep.layer[L - 1].keeps_stash ? L - 1 : L;
  p.first_active = sweep.first_active;
  p.out = sweep.out;
  p.diag = sweep.diag;
  p.residual_rows = sweep.residual_rows;
  p.at = layout_of(sweep, task, rows);
  for (int l = 0; l < L; ++l) {
    p.layer[l].layer = sweep.layer[l];
    if (task == Task::diag) continue;
    if (task == Task::forward && sweep.A != nullptr) p.layer[l].A = sweep.A[l];
    if (task == Task::backward || sweep.A != nullptr) p.layer[l].Z = sweep.Z[l];
    if (task == Task::backward) p.layer[l].D = sweep.D[l];
  }
  return p;
}

template <class T>
SmallGroup<T> small_group(const Group<T>& group, int tile_points) {
  return {group.points, group.beta, group.omega, group.beta_stride, group.omega_stride,
          group.n,      group.row,  0,           group.directions,  group.collapsed,
          tile_points,  0,          0,           group.components};
}

template <class T>
bool has_room(const SmallParams<T>& table, const Component& component) {
  return table.components < kMaxGroups && table.channels + component.channels <= kMaxTableChannels;
}

template <class T>
void add_component(SmallParams<T>& table, const Component& component, int64_t residual_row) {
  table.component[table.components++] = {core::seeds_of<T>(component, 0),
                                         component.row,
                                         residual_row,
                                         component.channels,
                                         component.directions,
                                         component.collapsed,
                                         table.channels};
  for (int c = 0; c < component.channels; ++c)
    table.channel[table.channels++] = static_cast<uint16_t>(component.channel[c]);
}

// The groups that have points, of the diagonal those that are selected. Backward, a component has blocks of its own;
// in the diagonal a group's components share one forward sweep.
template <class T>
std::vector<SmallParams<T>> small_tables(const Sweep<T>& sweep, Task task, int rows) {
  const SmallParams<T> empty = without_groups(sweep, task, rows);
  std::vector<SmallParams<T>> tables;
  for (int g = 0; g < sweep.groups; ++g) {
    const Group<T>& group = sweep.group[g];
    const int components = task == Task::forward ? 0 : group.components;
    if (group.n == 0 || (task == Task::diag && !group.selected) || (task != Task::forward && components == 0)) continue;
    int j = 0;
    do {
      if (tables.empty() || tables.back().count == kMaxGroups ||
          (j < components && !has_room(tables.back(), group.component[j])))
        tables.push_back(empty);
      SmallParams<T>& table = tables.back();
      SmallGroup<T>& entry = table.group[table.count++];
      entry = small_group(group, rows / (task == Task::backward ? group.component[j].channels : group.channels));
      entry.first_component = table.components;
      entry.first_tile = table.tiles;
      table.tiles += blocks_for(group.n, entry.tile_points);
      for (const int most = task == Task::backward ? j + 1 : components; j < most; ++j, ++entry.components) {
        if (!has_room(table, group.component[j])) break;
        add_component(table, group.component[j], group.residual_row + j);
      }
    } while (j < components);
  }
  return tables;
}

}  // namespace ntkfast::cuda
