// Perceptrons with SiLU, on the atoms and on the edges of a graph: values, then derivatives by their inputs.
#pragma once

#include <cstdint>
#include <vector>

#include "gemm.h"
#include "simd.h"

namespace mlmm {

// An affine map as published: weights (outputs, inputs) and, if there is one, bias.
struct AffineMap {
    int outputs = 0, inputs = 0;
    const double *weights = nullptr, *bias = nullptr;
};

// Packed both ways; numbers of inputs and outputs are filled up to whole vectors with zeros.
template <class T>
class Dense {
   public:
    int inputs = 0, outputs = 0;

    Dense() = default;
    // Only columns [begin, begin + place.size()) of the map; each goes to its place among so many inputs.
    Dense(const AffineMap& map, int begin, const std::vector<int>& place, int n_inputs, bool with_bias)
        : inputs(padded(n_inputs)), outputs(padded(map.outputs)) {
        const size_t size = static_cast<size_t>(inputs) * outputs;
        forward_.assign(size, T(0)), backward_.assign(size, T(0)), bias_.assign(outputs, T(0));
        for (int o = 0; o < map.outputs; ++o) {
            for (size_t i = 0; i < place.size(); ++i) {
                const T value = static_cast<T>(map.weights[static_cast<size_t>(o) * map.inputs + begin + i]);
                forward_[packed(place[i], o, inputs)] = value;
                backward_[packed(o, place[i], outputs)] = value;
            }
            if (with_bias && map.bias) bias_[o] = static_cast<T>(map.bias[o]);
        }
        for (int k = 0; k < std::max(inputs, outputs); k += kLanes) columns_.push_back(k / kLanes);
    }

    void apply(const T* x, int stride, int rows, T* out) const {
        const Range whole{0, inputs};
        multiply(x, stride, rows, forward_.data(), inputs, columns_.data(), outputs / kLanes, &whole, 1,
                 bias_.data(), out, outputs);
    }

    void apply_back(const T* dy, int rows, T* dx) const {
        const Range whole{0, outputs};
        multiply(dy, outputs, rows, backward_.data(), outputs, columns_.data(), inputs / kLanes, &whole, 1,
                 static_cast<const T*>(nullptr), dx, inputs);
    }

   private:
    static constexpr int kLanes = Lanes<T>::n;

    static size_t packed(int input, int output, int n) {
        return (static_cast<size_t>(output / kLanes) * n + input) * kLanes + output % kLanes;
    }

    std::vector<T> forward_, backward_, bias_;
    std::vector<int> columns_;
};

// SiLU in place, and its derivative; what is not a number stays so.
template <class T>
void activate(T* values, T* slopes, size_t n) {
    for (size_t i = 0; i < n; i += Lanes<T>::n) {
        const auto z = load(values + i), zero = broadcast(T(0));
        const auto small = exponential(z > zero ? -z : z);
        const auto inverse = T(1) / (T(1) + small);
        const auto sigmoid = z > zero ? inverse : small * inverse;
        store(slopes + i, sigmoid * (T(1) + z * (T(1) - sigmoid)));
        store(values + i, z * sigmoid);
    }
}

template <class T>
void scale_by(T* values, const T* factors, size_t n) {
    for (size_t i = 0; i < n; i += Lanes<T>::n) store(values + i, load(values + i) * load(factors + i));
}

template <class T>
T* room(std::vector<T>& v, size_t n) {
    if (v.size() < n) v.resize(n + n / 4);
    return v.data();
}

// What the way back needs of a perceptron.
template <class T>
struct Trace {
    std::vector<std::vector<T>> values, slopes;
    std::vector<T> gradient[2];
};

template <class T>
class Perceptron {
   public:
    Perceptron() = default;
    // `head`: the last layer is bare.
    Perceptron(const std::vector<AffineMap>& maps, size_t first, bool head) : head_(head) {
        for (size_t k = first; k < maps.size(); ++k) {
            std::vector<int> place(maps[k].inputs);
            for (int i = 0; i < maps[k].inputs; ++i) place[i] = i;
            layers_.emplace_back(maps[k], 0, place, maps[k].inputs, true);
        }
    }

    int inputs() const { return layers_.front().inputs; }
    int outputs() const { return layers_.back().outputs; }

    // (rows, outputs)
    T* forward(const T* x, int stride, int rows, Trace<T>& trace) const {
        const size_t depth = layers_.size();
        trace.values.resize(depth), trace.slopes.resize(depth);
        for (size_t k = 0; k < depth; ++k) {
            const size_t n = static_cast<size_t>(rows) * layers_[k].outputs;
            T* y = room(trace.values[k], n);
            layers_[k].apply(x, stride, rows, y);
            if (k + 1 < depth || !head_) activate(y, room(trace.slopes[k], n), n);
            x = y, stride = layers_[k].outputs;
        }
        return trace.values.back().data();
    }

    // dy (rows, outputs) is used up; (rows, inputs).
    T* backward(T* dy, int rows, Trace<T>& trace) const {
        int side = 0;
        for (size_t k = layers_.size(); k-- > 0;) {
            if (k + 1 < layers_.size() || !head_)
                scale_by(dy, trace.slopes[k].data(), static_cast<size_t>(rows) * layers_[k].outputs);
            T* dx = room(trace.gradient[side], static_cast<size_t>(rows) * layers_[k].inputs);
            layers_[k].apply_back(dy, rows, dx);
            dy = dx, side = 1 - side;
        }
        return dy;
    }

   private:
    bool head_ = false;
    std::vector<Dense<T>> layers_;
};

// Directed edges from sender to receiver.
struct EdgeList {
    int n_atoms = 0, size = 0;
    std::vector<int> sender, receiver;
};

template <class T>
struct EdgeTrace {
    Trace<T> rest;
    std::vector<T> slopes, values, of_sender, of_receiver, to_sender, to_receiver, by_edge, by_node;
};

// A perceptron of (node of the sender, node of the receiver, edge). Its first layer acts on nodes once for
// each atom; the rest acts on edges.
template <class T>
class EdgePerceptron {
   public:
    EdgePerceptron() = default;
    // place: of each published input of the edge among `n_inputs`; nodes come first or last.
    EdgePerceptron(const std::vector<AffineMap>& maps, int node_size, bool nodes_first,
                   const std::vector<int>& place, int n_inputs, bool head)
        : rest_(maps, 1, head) {
        std::vector<int> nodes(node_size);
        for (int i = 0; i < node_size; ++i) nodes[i] = i;
        const int edge = static_cast<int>(place.size()), begin = nodes_first ? 0 : edge;
        sender_ = Dense<T>(maps[0], begin, nodes, node_size, false);
        receiver_ = Dense<T>(maps[0], begin + node_size, nodes, node_size, true);
        edge_ = Dense<T>(maps[0], nodes_first ? 2 * node_size : 0, place, n_inputs, false);
    }

    int inputs() const { return edge_.inputs; }

    T* forward(const T* nodes, const T* edges, const EdgeList& list, EdgeTrace<T>& trace) const {
        const int width = edge_.outputs;
        const size_t n = static_cast<size_t>(list.size) * width, m = static_cast<size_t>(list.n_atoms) * width;
        T *of_sender = room(trace.of_sender, m), *of_receiver = room(trace.of_receiver, m);
        sender_.apply(nodes, sender_.inputs, list.n_atoms, of_sender);
        receiver_.apply(nodes, receiver_.inputs, list.n_atoms, of_receiver);
        T* y = room(trace.values, n);
        edge_.apply(edges, edge_.inputs, list.size, y);
        for (int e = 0; e < list.size; ++e) {
            T* row = y + static_cast<size_t>(e) * width;
            const T* a = of_sender + static_cast<size_t>(list.sender[e]) * width;
            const T* b = of_receiver + static_cast<size_t>(list.receiver[e]) * width;
            for (int i = 0; i < width; i += kLanes) store(row + i, load(row + i) + load(a + i) + load(b + i));
        }
        activate(y, room(trace.slopes, n), n);
        return rest_.forward(y, width, list.size, trace.rest);
    }

    // (edges, inputs); adds to the gradient of the nodes if there is one.
    T* backward(T* dy, const EdgeList& list, EdgeTrace<T>& trace, T* by_nodes) const {
        const int width = edge_.outputs;
        dy = rest_.backward(dy, list.size, trace.rest);
        scale_by(dy, trace.slopes.data(), static_cast<size_t>(list.size) * width);
        if (by_nodes) {
            const size_t m = static_cast<size_t>(list.n_atoms) * width;
            T *to_sender = room(trace.to_sender, m), *to_receiver = room(trace.to_receiver, m);
            std::fill(to_sender, to_sender + m, T(0)), std::fill(to_receiver, to_receiver + m, T(0));
            for (int e = 0; e < list.size; ++e) {
                const T* row = dy + static_cast<size_t>(e) * width;
                T* a = to_sender + static_cast<size_t>(list.sender[e]) * width;
                T* b = to_receiver + static_cast<size_t>(list.receiver[e]) * width;
                for (int i = 0; i < width; i += kLanes) {
                    store(a + i, load(a + i) + load(row + i)), store(b + i, load(b + i) + load(row + i));
                }
            }
            const size_t size = static_cast<size_t>(list.n_atoms) * sender_.inputs;
            T* by_node = room(trace.by_node, size);
            sender_.apply_back(to_sender, list.n_atoms, by_node);
            for (size_t i = 0; i < size; ++i) by_nodes[i] += by_node[i];
            receiver_.apply_back(to_receiver, list.n_atoms, by_node);
            for (size_t i = 0; i < size; ++i) by_nodes[i] += by_node[i];
        }
        T* dx = room(trace.by_edge, static_cast<size_t>(list.size) * edge_.inputs);
        edge_.apply_back(dy, list.size, dx);
        return dx;
    }

   private:
    static constexpr int kLanes = Lanes<T>::n;
    Dense<T> sender_, receiver_, edge_;
    Perceptron<T> rest_;
};

}  // namespace mlmm
