// Components as a kernel sees them: a table by value (limits.h), and the tile of points that a block works on.
#pragma once

#include <vector>

#include "launch.cuh"
#include "limits.h"

namespace ntkfast::cuda {

// One component. Its channel c stands in rows a_row + channel(c)·n + i of A and Z, and d_row + c·n + i of D; point i is
// residual row residual_row + i·stride.
template <class T>
struct Part {
  int64_t n, a_row, d_row, residual_row;
  int64_t first_tile;  // of the table's
  const T* omega;
  int64_t omega_stride;
  int stride, channels, directions, collapsed, group_directions;
  int first_channel;  // in the table
  int number;         // among all components
  int tile_points;
};

template <class T>
struct Parts {
  int64_t tiles;
  int count, channels;
  Part<T> part[kMaxGroups];
  uint16_t channel[kMaxTableChannels];
};

// Points first … first + count − 1 of one entry of a table.
struct PointTile {
  int entry;
  int64_t first;
  int count;
};

// Entries are those of a table, with n, first_tile and tile_points.
template <class Entry>
__device__ __forceinline__ PointTile point_tile(const Entry* entries, int count, int64_t tile) {
  int e = 0;
  while (e + 1 < count && tile >= entries[e + 1].first_tile) ++e;
  const int64_t first = (tile - entries[e].first_tile) * entries[e].tile_points, left = entries[e].n - first;
  return {e, first, static_cast<int>(left < entries[e].tile_points ? left : entries[e].tile_points)};
}

template <class T>
Part<T> part_of(const Group<T>& group, int j, int number, int tile_points) {
  const Component& component = group.component[j];
  return {group.n,
          group.row,
          component.row,
          group.residual_row + j,
          0,
          group.omega,
          group.omega_stride,
          group.components,
          component.channels,
          component.directions,
          component.collapsed,
          group.directions,
          0,
          number,
          tile_points};
}

// Every component of a group, for `only` of tables_of.
constexpr int kAllComponents = -1;

// The components that have points, or of these the ones in selected groups, or of these the one of that number in its
// group, as tables. tile_points(channels) is how many points a block takes. A component beyond kMaxTableChannels must
// have been refused.
template <class T, class TilePoints>
std::vector<Parts<T>> tables_of(const Sweep<T>& sweep, bool selected, const TilePoints& tile_points,
                                int only = kAllComponents) {
  std::vector<Parts<T>> tables;
  int number = 0;
  for (int g = 0; g < sweep.groups; ++g)
    for (int j = 0; j < sweep.group[g].components; ++j, ++number) {
      const Group<T>& group = sweep.group[g];
      const Component& component = group.component[j];
      if (group.n == 0 || (selected && !group.selected) || (only != kAllComponents && only != j)) continue;
      if (tables.empty() || tables.back().count == kMaxGroups ||
          tables.back().channels + component.channels > kMaxTableChannels)
        tables.push_back(Parts<T>{});
      Parts<T>& table = tables.back();
      Part<T>& part = table.part[table.count++];
      part = part_of(group, j, number, tile_points(component.channels));
      part.first_tile = table.tiles;
      part.first_channel = table.channels;
      for (int c = 0; c < component.channels; ++c)
        table.channel[table.channels++] = static_cast<uint16_t>(component.channel[c]);
      table.tiles += blocks_for(group.n, part.tile_points);
    }
  return tables;
}

}  // namespace ntkfast::cuda
