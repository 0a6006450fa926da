// One layer's product for a tile, with all that comes after it.
//
// On matrix tiles the product of a panel and the vectors' work on the panel before it run side by side: the processor
// has both in flight. It also keeps the tiles awake: after some hundred cycles of rest they take a thousand to wake.
#pragma once

#include "activation_panel.h"
#include "product.h"

namespace ntkfast {
namespace NTKFAST_ISA {
namespace {

// Where the products of a panel stand, (channels, count, kPanel): at(q), row after row. Panels that follow each other
// never share a place, since the products of one are made while those of the one before it are read.
template <class T>
struct Products {
  T* data;
  int64_t row, place;  // the distances of rows and of places
  bool in_turn;        // two places for all panels, or one for each

  T* at(int64_t q) const { return data + (in_turn ? q % 2 : q) * place; }
};

template <class T>
Products<T> scratch_products(T* scratch, int64_t rows) {
  return {scratch, kPanel<T>, rows * kPanel<T>, true};
}

// Each panel in its columns of a tile-local stack, whose rows are padded to whole vectors.
template <class T>
Products<T> products_within(Stack<T> stack) {
  return {stack.data, stack.row, kPanel<T>, false};
}

// What a layer's product reads and writes. The rows of a tile-local stack stand together, so that its channels are one
// left operand.
template <class T>
struct StackProduct {
  int channels;
  int64_t count;  // points
  Left<T> left;   // channels · count rows of depth K
  int64_t K, columns;
  Products<T> products;
};

// Σ_k left[r, k] panel[k, j], panel by panel:
//   finish(columns, products, points)   turns a panel's products, of some points, into what is stored
//   split(p, row)                       splits kSplitRows rows of the finished columns of panel p, for the next product
//   meanwhile(points)                   work on some points that neither waits for this product nor is waited for
template <class T, class Panel, class Finish, class Split, class Meanwhile>
void stack_product(const StackProduct<T>& p, const Panel& panel, const Finish& finish, const Split& split,
                   const Meanwhile& meanwhile) {
  const int64_t rows = p.channels * p.count, panels = ceil_div(p.columns, kPanel<T>);
  const int64_t blocks = ceil_div(rows, kSplitRows), everything = p.count + blocks;
  const auto multiply = [&](int64_t q, auto... aside) {
    product<false>(p.left, rows, panel(q), panel_columns<T>(q, p.columns).width, p.K, p.products.at(q), p.products.row,
                   aside...);
  };
  // Pieces from … to − 1 of what follows panel q: its points, then its blocks. Before the first one: of meanwhile's.
  const auto follow = [&](int64_t q, int64_t from, int64_t to) {
    if (from >= to) return;
    if (q < 0) return meanwhile(Points{from, to - from});
    const int64_t last = to < p.count ? to : p.count;
    if (from < last) finish(panel_columns<T>(q, p.columns), p.products.at(q), Points{from, last - from});
    for (int64_t block = from > p.count ? from : p.count; block < to; ++block) split(q, (block - p.count) * kSplitRows);
  };
  if (!on_tiles<T>(p.K)) {
    follow(-1, 0, p.count);
    for (int64_t q = 0; q < panels; ++q) {
      multiply(q);
      follow(q, 0, everything);
    }
    return;
  }
  for (int64_t q = -1; q < panels; ++q) {
    const int64_t pieces = q < 0 ? p.count : everything;
    int64_t done = 0;
    if (q + 1 < panels) {
      const int64_t each = ceil_div(pieces, product_steps(rows, p.K));
      auto some = [&] {
        const int64_t to = done + each < pieces ? done + each : pieces;
        follow(q, done, to);
        done = to;
      };
      multiply(q + 1, Aside(some));
    }
    follow(q, done, pieces);
  }
}

}  // namespace
}  // namespace NTKFAST_ISA
}  // namespace ntkfast
