// The networks of one element: all layers forward, then the gradient of each member's energy, row by row.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "gemm.h"
#include "symmetry.h"

namespace mlmm {

// Memory for weights: aligned, in large pages where the system has them.
template <class T>
class Block {
   public:
    void allocate(size_t n) {
        const size_t page = n * sizeof(T) > (1u << 20) ? (1u << 21) : 64;
        const size_t bytes = (n * sizeof(T) + page - 1) / page * page;
        data_.reset(static_cast<T*>(std::aligned_alloc(page, bytes)));
        if (!data_) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (page > 64) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
        std::memset(static_cast<void*>(data_.get()), 0, bytes);
    }
    T* get() { return data_.get(); }
    const T* get() const { return data_.get(); }

   private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
};

template <class T>
struct NetworkScratch {
    std::vector<std::vector<T>> values, slopes;
    std::vector<T> gradient[2];
};

// One hidden layer as it is packed: weights from inputs to outputs, the same for the way back, bias.
template <class T>
struct HiddenLayer {
    int inputs = 0, outputs = 0;
    size_t forward = 0, backward = 0, bias = 0;  // places in the member's block
};

// Entry (input, output) of a packed matrix with so many inputs.
template <class T>
size_t packed_place(int input, int output, int inputs) {
    constexpr int n = Lanes<T>::n;
    return (static_cast<size_t>(output / n) * inputs + input) * n + output % n;
}

// Where each published symmetry function stands among the padded blocks.
inline std::vector<int> places_of_functions(const Functions& f) {
    std::vector<int> result;
    for (int b = 0; b < f.blocks(); ++b) {
        const int width = b < f.species ? f.radial() : f.means() * f.angles();
        for (int k = 0; k < width; ++k) result.push_back(f.begin(b) + k);
    }
    return result;
}

// Vectors of columns in some ranges.
template <class T>
const std::vector<int>& columns_of(const std::vector<Range>& ranges) {
    thread_local std::vector<int> columns;
    columns.clear();
    for (const Range& range : ranges)
        for (int i = range.begin; i < range.end; i += Lanes<T>::n) columns.push_back(i / Lanes<T>::n);
    return columns;
}

template <class T>
class ElementNetworks {
   public:
    // widths: outputs of each layer, the last of them 1. weights[k]: (members, outputs, inputs).
    ElementNetworks(const Functions& functions, int members, const std::vector<int>& widths,
                    const std::vector<const double*>& weights, const std::vector<const double*>& biases)
        : length_(functions.length()) {
        size_t size = 0;
        const auto take = [&size](size_t n) {
            const size_t at = size;
            size += (n + 63) / 64 * 64;
            return at;
        };
        int inputs = length_;
        for (size_t k = 0; k + 1 < widths.size(); ++k) {
            HiddenLayer<T> layer;
            layer.inputs = inputs, layer.outputs = padded(widths[k]);
            layer.forward = take(static_cast<size_t>(layer.inputs) * layer.outputs);
            layer.bias = take(layer.outputs);
            layer.backward = take(static_cast<size_t>(layer.inputs) * layer.outputs);
            layers_.push_back(layer);
            inputs = layer.outputs;
        }
        last_width_ = inputs;
        last_ = take(inputs);
        last_bias_ = take(1);
        member_size_ = size;
        data_.allocate(size * members);
        const std::vector<int> where = places_of_functions(functions);
        for (int m = 0; m < members; ++m) {
            T* block = data_.get() + m * member_size_;
            int given = static_cast<int>(where.size());
            for (size_t k = 0; k < layers_.size(); ++k) {
                const HiddenLayer<T>& layer = layers_[k];
                const double* w = weights[k] + static_cast<size_t>(m) * widths[k] * given;
                for (int o = 0; o < widths[k]; ++o) {
                    for (int i = 0; i < given; ++i) {
                        const int place = k == 0 ? where[i] : i;
                        const T value = static_cast<T>(w[static_cast<size_t>(o) * given + i]);
                        block[layer.forward + packed_place<T>(place, o, layer.inputs)] = value;
                        block[layer.backward + packed_place<T>(o, place, layer.outputs)] = value;
                    }
                    block[layer.bias + o] = static_cast<T>(biases[k][static_cast<size_t>(m) * widths[k] + o]);
                }
                given = widths[k];
            }
            const double* w = weights.back() + static_cast<size_t>(m) * given;
            for (int i = 0; i < given; ++i)
                block[last_ + (layers_.empty() ? where[i] : i)] = static_cast<T>(w[i]);
            block[last_bias_] = static_cast<T>(biases.back()[m]);
        }
    }

    // Energies of the rows by one member and, if wanted, their gradients in the functions of the ranges.
    void evaluate(int member, const T* x, int rows, const std::vector<Range>& ranges, double* energies,
                  T* gradient, NetworkScratch<T>& scratch) const {
        const T* block = data_.get() + member * member_size_;
        const size_t depth = layers_.size();
        scratch.values.resize(depth), scratch.slopes.resize(depth);
        const T* input = x;
        int stride = length_;
        for (size_t k = 0; k < depth; ++k) {
            const HiddenLayer<T>& layer = layers_[k];
            const size_t n = static_cast<size_t>(rows) * layer.outputs;
            if (scratch.values[k].size() < n) scratch.values[k].resize(n), scratch.slopes[k].resize(n);
            const Range whole{0, layer.inputs};
            T* values = scratch.values[k].data();
            multiply(input, stride, rows, block + layer.forward, layer.inputs, all(layer.outputs),
                     layer.outputs / kLanes, k == 0 ? ranges.data() : &whole,
                     k == 0 ? static_cast<int>(ranges.size()) : 1, block + layer.bias, values, layer.outputs);
            activate(values, scratch.slopes[k].data(), n);
            input = values, stride = layer.outputs;
        }
        for (int r = 0; r < rows; ++r) {
            const T *row = input + static_cast<size_t>(r) * stride, *weights = block + last_;
            double parts[kPad] = {};
            for (int i = 0; i < last_width_; i += kPad)
                for (int k = 0; k < kPad; ++k) parts[k] += static_cast<double>(row[i + k]) * weights[i + k];
            energies[r] = block[last_bias_];
            for (const double part : parts) energies[r] += part;
        }
        if (!gradient) return;
        if (depth == 0) {
            for (int r = 0; r < rows; ++r)
                std::copy(block + last_, block + last_ + length_, gradient + static_cast<size_t>(r) * length_);
            return;
        }
        int side = 0;
        for (int s = 0; s < 2; ++s) {
            const size_t n = static_cast<size_t>(rows) * widest();
            if (scratch.gradient[s].size() < n) scratch.gradient[s].resize(n);
        }
        T* behind = scratch.gradient[side].data();
        for (int r = 0; r < rows; ++r)
            for (int i = 0; i < last_width_; i += kLanes)
                store(behind + static_cast<size_t>(r) * last_width_ + i, load(block + last_ + i));
        for (size_t k = depth; k-- > 0;) {
            const HiddenLayer<T>& layer = layers_[k];
            const T* slopes = scratch.slopes[k].data();
            for (size_t i = 0; i < static_cast<size_t>(rows) * layer.outputs; i += kLanes)
                store(behind + i, load(behind + i) * load(slopes + i));
            const Range whole{0, layer.outputs};
            const std::vector<int>& wanted = columns_of<T>(k == 0 ? ranges : std::vector<Range>{{0, layer.inputs}});
            side = 1 - side;
            T* ahead = k == 0 ? gradient : scratch.gradient[side].data();
            multiply(behind, layer.outputs, rows, block + layer.backward, layer.outputs, wanted.data(),
                     static_cast<int>(wanted.size()), &whole, 1, static_cast<const T*>(nullptr), ahead,
                     layer.inputs);
            behind = ahead;
        }
    }

    size_t bytes(int members) const { return member_size_ * members * sizeof(T); }

   private:
    static constexpr int kLanes = Lanes<T>::n;

    static const int* all(int outputs) {
        return columns_of<T>({{0, outputs}}).data();
    }

    int widest() const {
        int result = last_width_;
        for (const auto& layer : layers_) result = std::max(result, layer.outputs);
        return result;
    }

    // CELU with alpha = 0.1 in place, and its derivative.
    static void activate(T* values, T* slopes, size_t n) {
        for (size_t i = 0; i < n; i += kLanes) {
            const auto x = load(values + i);
            const auto zero = broadcast(T(0));
            const auto below = x > zero ? zero : x;
            const auto e = exponential(below * T(10));
            store(slopes + i, e);
            store(values + i, x - below + T(0.1) * (e - T(1)));
        }
    }

    int length_, last_width_ = 0;
    size_t last_ = 0, last_bias_ = 0, member_size_ = 0;
    std::vector<HiddenLayer<T>> layers_;
    Block<T> data_;
};

}  // namespace mlmm
