// The network of the field of one element: SiLU layers, a few outputs, and the way back for any derivatives
// by them.
#pragma once

#include <vector>

#include "networks.h"

namespace mlmm {

// Electronegativity, polarisability, hardness.
constexpr int kFieldOutputs = 3;

// Values and slopes of the hidden layers of some rows, kept for the way back.
template <class T>
struct FieldPass {
    std::vector<std::vector<T>> values, slopes;
    std::vector<T> gradient[2];
};

template <class T>
class FieldNetwork {
   public:
    // widths: outputs of each layer, the last of them kFieldOutputs. weights[k]: (outputs, inputs).
    FieldNetwork(const Functions& functions, const std::vector<int>& widths,
                 const std::vector<const double*>& weights, const std::vector<const double*>& biases)
        : length_(functions.length()) {
        size_t size = 0;
        const auto take = [&size](size_t n) {
            const size_t at = size;
            size += (n + 63) / 64 * 64;
            return at;
        };
        int inputs = length_;
        for (const int width : widths) {
            HiddenLayer<T> layer;
            layer.inputs = inputs, layer.outputs = padded(width);
            layer.forward = take(static_cast<size_t>(layer.inputs) * layer.outputs);
            layer.bias = take(layer.outputs);
            layer.backward = take(static_cast<size_t>(layer.inputs) * layer.outputs);
            layers_.push_back(layer);
            inputs = layer.outputs;
        }
        data_.allocate(size);
        const std::vector<int> where = places_of_functions(functions);
        int given = static_cast<int>(where.size());
        for (size_t k = 0; k < layers_.size(); ++k) {
            const HiddenLayer<T>& layer = layers_[k];
            for (int o = 0; o < widths[k]; ++o) {
                for (int i = 0; i < given; ++i) {
                    const int place = k == 0 ? where[i] : i;
                    const T value = static_cast<T>(weights[k][static_cast<size_t>(o) * given + i]);
                    data_.get()[layer.forward + packed_place<T>(place, o, layer.inputs)] = value;
                    data_.get()[layer.backward + packed_place<T>(o, place, layer.outputs)] = value;
                }
                data_.get()[layer.bias + o] = static_cast<T>(biases[k][o]);
            }
            given = widths[k];
        }
    }

    // Outputs (rows, kFieldOutputs) of the functions x (rows, length).
    void forward(const T* x, int rows, const std::vector<Range>& ranges, double* outputs, FieldPass<T>& pass) const {
        const T *block = data_.get(), *input = x;
        const size_t depth = layers_.size();
        pass.values.resize(depth), pass.slopes.resize(depth);
        int stride = length_;
        for (size_t k = 0; k < depth; ++k) {
            const HiddenLayer<T>& layer = layers_[k];
            const size_t n = static_cast<size_t>(rows) * layer.outputs;
            if (pass.values[k].size() < n) pass.values[k].resize(n), pass.slopes[k].resize(n);
            const Range whole{0, layer.inputs};
            T* values = pass.values[k].data();
            multiply(input, stride, rows, block + layer.forward, layer.inputs, columns({{0, layer.outputs}}).data(),
                     layer.outputs / kLanes, k == 0 ? ranges.data() : &whole,
                     k == 0 ? static_cast<int>(ranges.size()) : 1, block + layer.bias, values, layer.outputs);
            if (k + 1 < depth) activate(values, pass.slopes[k].data(), n);
            input = values, stride = layer.outputs;
        }
        for (int r = 0; r < rows; ++r)
            for (int o = 0; o < kFieldOutputs; ++o)
                outputs[r * kFieldOutputs + o] = input[static_cast<size_t>(r) * stride + o];
    }

    // Gradient (rows, length) in the functions of the ranges for derivatives by the outputs.
    void backward(const double* by_output, int rows, const std::vector<Range>& ranges, T* gradient,
                  FieldPass<T>& pass) const {
        const T* block = data_.get();
        const size_t depth = layers_.size();
        int side = 0;
        for (auto& space : pass.gradient) {
            const size_t n = static_cast<size_t>(rows) * widest();
            if (space.size() < n) space.resize(n);
        }
        T* behind = pass.gradient[side].data();
        const int last = layers_.back().outputs;
        std::fill(behind, behind + static_cast<size_t>(rows) * last, T(0));
        for (int r = 0; r < rows; ++r)
            for (int o = 0; o < kFieldOutputs; ++o)
                behind[static_cast<size_t>(r) * last + o] = static_cast<T>(by_output[r * kFieldOutputs + o]);
        for (size_t k = depth; k-- > 0;) {
            const HiddenLayer<T>& layer = layers_[k];
            if (k + 1 < depth) {
                const T* slopes = pass.slopes[k].data();
                for (size_t i = 0; i < static_cast<size_t>(rows) * layer.outputs; i += kLanes)
                    store(behind + i, load(behind + i) * load(slopes + i));
            }
            const Range whole{0, layer.outputs};
            const std::vector<int>& wanted = columns(k == 0 ? ranges : std::vector<Range>{{0, layer.inputs}});
            side = 1 - side;
            T* ahead = k == 0 ? gradient : pass.gradient[side].data();
            multiply(behind, layer.outputs, rows, block + layer.backward, layer.outputs, wanted.data(),
                     static_cast<int>(wanted.size()), &whole, 1, static_cast<const T*>(nullptr), ahead,
                     layer.inputs);
            behind = ahead;
        }
    }

   private:
    static constexpr int kLanes = Lanes<T>::n;

    static const std::vector<int>& columns(const std::vector<Range>& ranges) { return columns_of<T>(ranges); }

    int widest() const {
        int result = 0;
        for (const auto& layer : layers_) result = std::max(result, layer.outputs);
        return result;
    }

    // x/(1 + exp(-x)) in place, and its derivative.
    static void activate(T* values, T* slopes, size_t n) {
        for (size_t i = 0; i < n; i += kLanes) {
            const auto x = load(values + i), zero = broadcast(T(0));
            // exp of minus the size of x, which cannot overflow.
            const auto e = exponential(x > zero ? -x : x);
            const auto share = (x > zero ? broadcast(T(1)) : e) / (T(1) + e);
            store(slopes + i, share * (T(1) + x * (T(1) - share)));
            store(values + i, x * share);
        }
    }

    int length_;
    std::vector<HiddenLayer<T>> layers_;
    Block<T> data_;
};

}  // namespace mlmm
