// Small matrix products with register tiles; matrices are packed in columns as wide as one vector.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "simd.h"

namespace mlmm {

// Rows of a packed matrix that take part: the symmetry functions of elements that are there.
struct Range {
    int begin, end;
};

// Most columns and rows of one register tile: accumulators, weights and one entry must stay in registers.
constexpr int kMostColumns = kRegisters == 32 ? 4 : 2;
constexpr int kAccumulators = kRegisters == 32 ? 24 : 12;
constexpr int most_rows(int columns) { return std::min(12, kAccumulators / columns); }

template <class T>
using Tile = void (*)(const T* x, int stride, const T* const* weights, const Range* ranges, int n_ranges,
                      const T* const* bias, T* const* out, int out_stride);

template <class T, int Rows, int Columns>
void tile(const T* x, int stride, const T* const* weights, const Range* ranges, int n_ranges,
          const T* const* bias, T* const* out, int out_stride) {
    using V = typename Lanes<T>::V;
    constexpr int n = Lanes<T>::n;
    V sums[Rows][Columns];
    for (int c = 0; c < Columns; ++c) {
        const V start = bias ? load(bias[c]) : V{};
        for (int r = 0; r < Rows; ++r) sums[r][c] = start;
    }
    for (int k = 0; k < n_ranges; ++k) {
        for (int i = ranges[k].begin; i < ranges[k].end; ++i) {
            V w[Columns];
            for (int c = 0; c < Columns; ++c) w[c] = load(weights[c] + static_cast<ptrdiff_t>(i) * n);
            for (int r = 0; r < Rows; ++r) {
                const T entry = x[static_cast<ptrdiff_t>(r) * stride + i];
                for (int c = 0; c < Columns; ++c) sums[r][c] += w[c] * entry;
            }
        }
    }
    for (int r = 0; r < Rows; ++r)
        for (int c = 0; c < Columns; ++c) store(out[c] + static_cast<ptrdiff_t>(r) * out_stride, sums[r][c]);
}

template <class T, int Columns, int... Rows>
Tile<T> tile_of(int rows, std::integer_sequence<int, Rows...>) {
    static constexpr Tile<T> table[] = {tile<T, Rows + 1, Columns>...};
    return table[rows - 1];
}

template <class T, int Columns>
Tile<T> tile_with(int rows, int columns) {
    if constexpr (Columns > 1) {
        if (columns < Columns) return tile_with<T, Columns - 1>(rows, columns);
    }
    return tile_of<T, Columns>(rows, std::make_integer_sequence<int, most_rows(Columns)>{});
}

// x (rows, inputs) times some columns of a packed matrix (each of `inputs` vectors), plus bias, to out.
template <class T>
void multiply(const T* x, int stride, int rows, const T* packed, int inputs, const int* columns,
              int n_columns, const Range* ranges, int n_ranges, const T* bias, T* out, int out_stride) {
    constexpr int n = Lanes<T>::n;
    const int groups = (n_columns + kMostColumns - 1) / kMostColumns;
    for (int g = 0; g < groups; ++g) {
        const int first = n_columns * g / groups, width = n_columns * (g + 1) / groups - first;
        const T *weights[kMostColumns], *biases[kMostColumns];
        int places[kMostColumns];
        for (int c = 0; c < width; ++c) {
            places[c] = columns[first + c] * n;
            weights[c] = packed + static_cast<ptrdiff_t>(places[c]) * inputs;
            biases[c] = bias + (bias ? places[c] : 0);
        }
        const int bands = (rows + most_rows(width) - 1) / most_rows(width);
        for (int b = 0; b < bands; ++b) {
            const int row = rows * b / bands, height = rows * (b + 1) / bands - row;
            T* there[kMostColumns];
            for (int c = 0; c < width; ++c)
                there[c] = out + static_cast<ptrdiff_t>(row) * out_stride + places[c];
            tile_with<T, kMostColumns>(height, width)(x + static_cast<ptrdiff_t>(row) * stride, stride,
                                                      weights, ranges, n_ranges, bias ? biases : nullptr,
                                                      there, out_stride);
        }
    }
}

}  // namespace mlmm
