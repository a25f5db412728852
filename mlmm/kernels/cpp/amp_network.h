// AMP-BMS: two steps of equivariant messages over a region that point charges polarise, and their derivatives.
//
// As in mlmm/potentials/amp_bms/network.py, whose numbers these are. Geometry and what the charges induce in
// float64, networks in T; lengths in angstrom.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "amp_invariants.h"
#include "amp_layers.h"
#include "amp_response.h"

namespace mlmm {

// By name: perceptrons of the published weights in the order in which they are given.
enum AMPPart { kEdge, kMultipoles0, kMultipoles1, kMessage0, kMessage1, kUpdate0, kUpdate1, kCoefficients, kMonopoles,
               kEnergy, kParts };

constexpr int kNodes = 128, kChannels = 8, kRadial = 8, kEdgeSize = 32;
// Inputs of an edge's perceptrons: invariants, then the edge's own numbers.
constexpr int kFirst = kInvariants * kChannels, kSecond = kInvariants * (kChannels + 1), kSecondPadded = 96;

// Places of published inputs: invariants lie there channel by channel, here invariant by invariant.
inline std::vector<int> edge_places(int channels, int begin_of_edge) {
    std::vector<int> place;
    for (int c = 0; c < channels; ++c)
        for (int k = 0; k < kInvariants; ++k) place.push_back(k * channels + c);
    for (int i = 0; i < kEdgeSize; ++i) place.push_back(begin_of_edge + i);
    return place;
}

template <class T>
struct AMPModel {
    std::vector<double> elements;  // (rows, kNodes)
    double frequency[kRadial], cutoff;
    PolarisationNetwork polarisation;
    EdgePerceptron<T> edge, multipoles[2], message[2];
    Perceptron<T> update[2], coefficients, monopoles, energy;

    void take(const std::vector<std::vector<AffineMap>>& maps) {
        std::vector<int> radial(kRadial);
        for (int i = 0; i < kRadial; ++i) radial[i] = i;
        edge = EdgePerceptron<T>(maps[kEdge], kNodes, false, radial, kRadial, true);
        const std::vector<int> own = edge_places(0, 0), first = edge_places(kChannels, kFirst);
        const std::vector<int> second = edge_places(kChannels + 1, kSecondPadded);
        multipoles[0] = EdgePerceptron<T>(maps[kMultipoles0], kNodes, true, own, kEdgeSize, true);
        multipoles[1] = EdgePerceptron<T>(maps[kMultipoles1], kNodes, true, first, kFirst + kEdgeSize, true);
        message[0] = EdgePerceptron<T>(maps[kMessage0], kNodes, true, first, kFirst + kEdgeSize, false);
        message[1] = EdgePerceptron<T>(maps[kMessage1], kNodes, true, second, kSecondPadded + kEdgeSize, false);
        update[0] = Perceptron<T>(maps[kUpdate0], 0, false), update[1] = Perceptron<T>(maps[kUpdate1], 0, false);
        coefficients = Perceptron<T>(maps[kCoefficients], 0, true);
        monopoles = Perceptron<T>(maps[kMonopoles], 0, true), energy = Perceptron<T>(maps[kEnergy], 0, true);
    }
};

// Of each atom: energy, charge, factor of C6, dipole (3), quadrupole (3, 3).
constexpr int kOutputs = 15;

template <class T>
class AMPEvaluation {
   public:
    void forward(const AMPModel<T>& model, int n, const double* positions, const int64_t* species, const Box& box,
                 int64_t m, const double* sources, const double* charges, double width, double* outputs) {
        n_ = n, m_ = m;
        find_edges(model, positions, box);
        const int edges = list_.size;
        T* h0 = room(h_[0], static_cast<size_t>(n) * kNodes);
        for (int i = 0; i < n; ++i)
            for (int k = 0; k < kNodes; ++k)
                h0[i * kNodes + k] = static_cast<T>(model.elements[species[i] * kNodes + k]);
        const T* e = model.edge.forward(h0, basis_.data(), list_, edge_);
        const int width_e = padded(kEdgeSize), width_a = model.message[0].inputs();

        const T* own = e;
        parts_[0] = model.multipoles[0].forward(h0, own, list_, of_multipoles_[0]);
        gather<kChannels>(parts_[0], mu_[0]);
        T* first = room(inputs_[0], static_cast<size_t>(edges) * width_a);
        for (int k = 0; k < edges; ++k) {
            T* row = first + static_cast<size_t>(k) * width_a;
            std::fill(row, row + width_a, T(0));
            invariants<T, kChannels>(multipole<kChannels>(0, list_.sender[k]), multipole<kChannels>(0, list_.receiver[k]),
                                     &u_[3 * k], row);
            std::copy(e + static_cast<size_t>(k) * width_e, e + static_cast<size_t>(k) * width_e + kEdgeSize, row + kFirst);
        }
        pass(model, 0, first);

        const T* h1 = h_[1].data();
        raw_coefficients_ = model.coefficients.forward(h1, kNodes, n, of_coefficients_);
        const int width_c = model.coefficients.outputs();
        response_.evaluate(model.polarisation, box, n, positions, m, sources, charges, width, room(sums_, 9 * n));
        softplus_.resize(3 * n);
        for (int i = 0; i < n; ++i)
            for (int k = 0; k < 3; ++k) {
                const double z = raw_coefficients_[i * width_c + k];
                softplus_[3 * i + k] = z > 20.0 ? z : std::log1p(std::exp(z));
            }

        parts_[1] = model.multipoles[1].forward(h1, first, list_, of_multipoles_[1]);
        gather<kChannels + 1>(parts_[1], mu_[1]);
        for (int i = 0; i < n; ++i) {
            T* own_mu = mu_[1].data() + static_cast<size_t>(i) * kComponents * (kChannels + 1);
            for (int a = 0; a < kComponents; ++a)
                own_mu[a * (kChannels + 1) + kChannels] = static_cast<T>(induced(i, a));
        }
        const int width_b = model.message[1].inputs();
        T* second = room(inputs_[1], static_cast<size_t>(edges) * width_b);
        for (int k = 0; k < edges; ++k) {
            T* row = second + static_cast<size_t>(k) * width_b;
            std::fill(row, row + width_b, T(0));
            invariants<T, kChannels + 1>(multipole<kChannels + 1>(1, list_.sender[k]),
                                         multipole<kChannels + 1>(1, list_.receiver[k]), &u_[3 * k], row);
            std::copy(e + static_cast<size_t>(k) * width_e, e + static_cast<size_t>(k) * width_e + kEdgeSize,
                      row + kSecondPadded);
        }
        pass(model, 1, second);

        const T* h2 = h_[2].data();
        const T* energies = model.energy.forward(h2, kNodes, n, of_energy_);
        const T* monopoles = model.monopoles.forward(h2, kNodes, n, of_monopoles_);
        for (int i = 0; i < n; ++i) {
            double* out = outputs + kOutputs * i;
            out[0] = energies[i * model.energy.outputs()], out[1] = monopoles[i * model.monopoles.outputs()];
            out[2] = softplus_[3 * i];
            const T* own_mu = multipole<kChannels + 1>(1, i);
            double t[kComponents];
            for (int a = 0; a < kComponents; ++a) t[a] = own_mu[a * (kChannels + 1)] + induced(i, a);
            const double whole[9] = {t[3], t[6], t[7], t[6], t[4], t[8], t[7], t[8], t[5]};
            std::copy(t, t + 3, out + 3), std::copy(whole, whole + 9, out + 6);
        }
    }

    // Adds to gradients of atoms (n, 3) and sources (m, 3), by angstrom, for derivatives by the outputs.
    void backward(const AMPModel<T>& model, const double* by_outputs, double* by_atoms, double* by_sources) {
        const int edges = list_.size;
        const size_t nodes = static_cast<size_t>(n_) * kNodes;
        by_u_.assign(3 * static_cast<size_t>(edges), T(0)), by_w_.assign(edges, 0.0);
        by_sums_.assign(9 * static_cast<size_t>(n_), 0.0);
        std::vector<double> by_induced(9 * static_cast<size_t>(n_), 0.0);
        by_mu_.assign(static_cast<size_t>(n_) * kComponents * (kChannels + 1), T(0));
        // Energies and monopoles.
        T* by_h = room(by_h_[1], nodes);
        {
            const int we = model.energy.outputs(), wq = model.monopoles.outputs();
            T* g = room(scratch_, static_cast<size_t>(n_) * std::max(we, wq));
            std::fill(g, g + static_cast<size_t>(n_) * we, T(0));
            for (int i = 0; i < n_; ++i) g[i * we] = static_cast<T>(by_outputs[kOutputs * i]);
            const T* d = model.energy.backward(g, n_, of_energy_);
            std::copy(d, d + nodes, by_h);
            std::fill(g, g + static_cast<size_t>(n_) * wq, T(0));
            for (int i = 0; i < n_; ++i) g[i * wq] = static_cast<T>(by_outputs[kOutputs * i + 1]);
            d = model.monopoles.backward(g, n_, of_monopoles_);
            for (size_t k = 0; k < nodes; ++k) by_h[k] += d[k];
        }
        for (int i = 0; i < n_; ++i) {
            const double *g = by_outputs + kOutputs * i + 3, *q = g + 3;
            const double t[kComponents] = {g[0], g[1], g[2], q[0], q[4], q[8], q[1] + q[3], q[2] + q[6], q[5] + q[7]};
            for (int a = 0; a < kComponents; ++a) {
                by_mu_[(static_cast<size_t>(i) * kComponents + a) * (kChannels + 1)] = static_cast<T>(t[a]);
                by_induced[9 * i + a] = t[a];
            }
        }
        // Second step.
        const T* by_second = pass_back(model, 1, by_h);
        const int width_b = model.message[1].inputs(), width_a = model.message[0].inputs();
        by_e_.assign(static_cast<size_t>(edges) * padded(kEdgeSize), T(0));
        invariants_of<kChannels + 1>(1, by_second, width_b);
        add_edges(by_second, width_b, kSecondPadded);
        for (int i = 0; i < n_; ++i)
            for (int a = 0; a < kComponents; ++a)
                by_induced[9 * i + a] +=
                    by_mu_[(static_cast<size_t>(i) * kComponents + a) * (kChannels + 1) + kChannels];
        T* by_parts = gather_back<kChannels + 1>(parts_[1]);
        T* by_first = room(by_inputs_, static_cast<size_t>(edges) * width_a);
        {
            const T* d = model.multipoles[1].backward(by_parts, list_, of_multipoles_[1], by_h);
            std::copy(d, d + static_cast<size_t>(edges) * width_a, by_first);
        }
        // What the charges induce, and its coefficients.
        {
            const int width_c = model.coefficients.outputs();
            T* g = room(scratch_, static_cast<size_t>(n_) * width_c);
            std::fill(g, g + static_cast<size_t>(n_) * width_c, T(0));
            for (int i = 0; i < n_; ++i) {
                double by[3] = {by_outputs[kOutputs * i + 2], 0.0, 0.0};
                for (int a = 0; a < kComponents; ++a) {
                    const int k = a < 3 ? 1 : 2;
                    by[k] += by_induced[9 * i + a] * sums_[9 * i + a];
                    by_sums_[9 * i + a] = by_induced[9 * i + a] * softplus_[3 * i + k];
                }
                for (int k = 0; k < 3; ++k) {
                    const double z = raw_coefficients_[i * width_c + k];
                    g[i * width_c + k] = static_cast<T>(by[k] / (1.0 + std::exp(-z)));
                }
            }
            const T* d = model.coefficients.backward(g, n_, of_coefficients_);
            for (size_t k = 0; k < nodes; ++k) by_h[k] += d[k];
            response_.backward(by_sums_.data(), by_atoms, by_sources);
        }
        // First step; the nodes before it are constants.
        {
            const T* d = pass_back(model, 0, by_h);
            for (size_t k = 0; k < static_cast<size_t>(edges) * width_a; ++k) by_first[k] += d[k];
        }
        by_mu_.assign(static_cast<size_t>(n_) * kComponents * kChannels, T(0));
        invariants_of<kChannels>(0, by_first, width_a);
        add_edges(by_first, width_a, kFirst);
        by_parts = gather_back<kChannels>(parts_[0]);
        const T* d = model.multipoles[0].backward(by_parts, list_, of_multipoles_[0], nullptr);
        for (size_t k = 0; k < by_e_.size(); ++k) by_e_[k] += d[k];
        const T* by_basis = model.edge.backward(by_e_.data(), list_, edge_, nullptr);
        geometry_back(model, by_basis, by_atoms);
    }

   private:
    template <int C>
    const T* multipole(int step, int atom) const {
        return mu_[step].data() + static_cast<size_t>(atom) * kComponents * C;
    }

    double induced(int i, int a) const { return softplus_[3 * i + (a < 3 ? 1 : 2)] * sums_[9 * i + a]; }

    void find_edges(const AMPModel<T>& model, const double* x, const Box& box) {
        list_.n_atoms = n_;
        list_.sender.clear(), list_.receiver.clear(), length_.clear(), u_.clear(), direction_.clear();
        for (int s = 0; s < n_; ++s) {
            for (int t = 0; t < n_; ++t) {
                double v[3];
                for (int a = 0; a < 3; ++a) v[a] = x[3 * t + a] - x[3 * s + a];
                if (box.periodic) box.shorten(v[0], v[1], v[2]);
                const double r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
                if (!(r < model.cutoff && r > kShortest)) continue;
                list_.sender.push_back(s), list_.receiver.push_back(t), length_.push_back(r);
                for (const double c : v) direction_.push_back(c / r), u_.push_back(static_cast<T>(c / r));
            }
        }
        list_.size = static_cast<int>(length_.size());
        const int width = padded(kRadial);
        basis_.assign(static_cast<size_t>(list_.size) * width, T(0));
        slopes_.resize(static_cast<size_t>(list_.size) * kRadial);
        w_.resize(list_.size), dw_.resize(list_.size);
        for (int k = 0; k < list_.size; ++k) {
            const double y = length_[k] / model.cutoff;
            double slope;
            const double w = envelope(y, slope);
            w_[k] = static_cast<T>(w), dw_[k] = slope / model.cutoff;
            for (int i = 0; i < kRadial; ++i) {
                const double f = model.frequency[i], s = std::sin(f * y), c = std::cos(f * y);
                basis_[static_cast<size_t>(k) * width + i] = static_cast<T>(w * s);
                slopes_[static_cast<size_t>(k) * kRadial + i] = (slope * s + w * f * c) / model.cutoff;
            }
        }
    }

    // Dipoles and quadrupoles of the atoms: sums over the edges into them.
    template <int C>
    void gather(const T* parts, std::vector<T>& mu) {
        mu.assign(static_cast<size_t>(n_) * kComponents * C, T(0));
        for (int k = 0; k < list_.size; ++k) {
            const T *row = parts + static_cast<size_t>(k) * padded(2 * kChannels), w = w_[k];
            T* own = mu.data() + static_cast<size_t>(list_.receiver[k]) * kComponents * C;
            T t[kComponents];
            tensors(&u_[3 * k], t);
            for (int a = 0; a < kComponents; ++a)
                for (int c = 0; c < kChannels; ++c) own[a * C + c] += row[c + (a < 3 ? 0 : kChannels)] * w * t[a];
        }
    }

    static void tensors(const T* u, T* t) {
        for (int a = 0; a < 3; ++a) t[a] = u[a], t[3 + a] = u[a] * u[a] - T(1) / T(3);
        t[6] = u[0] * u[1], t[7] = u[0] * u[2], t[8] = u[1] * u[2];
    }

    // From by_mu_ to directions, envelope and the parts, which are returned.
    template <int C>
    T* gather_back(const T* parts) {
        const int width = padded(2 * kChannels);
        T* by_parts = room(by_parts_, static_cast<size_t>(list_.size) * width);
        for (int k = 0; k < list_.size; ++k) {
            const T *row = parts + static_cast<size_t>(k) * width, w = w_[k], *u = &u_[3 * k];
            const T* g = by_mu_.data() + static_cast<size_t>(list_.receiver[k]) * kComponents * C;
            T* out = by_parts + static_cast<size_t>(k) * width;
            T t[kComponents], by_t[kComponents] = {}, by_w = 0;
            tensors(u, t);
            std::fill(out, out + width, T(0));
            for (int a = 0; a < kComponents; ++a) {
                const int shift = a < 3 ? 0 : kChannels;
                for (int c = 0; c < kChannels; ++c) {
                    out[shift + c] += g[a * C + c] * t[a];
                    by_t[a] += g[a * C + c] * row[shift + c];
                }
            }
            for (int c = 0; c < 2 * kChannels; ++c) by_w += out[c] * row[c], out[c] *= w;
            by_w_[k] += by_w;
            T* by_u = &by_u_[3 * k];
            by_u[0] += w * (by_t[0] + T(2) * by_t[3] * u[0] + by_t[6] * u[1] + by_t[7] * u[2]);
            by_u[1] += w * (by_t[1] + T(2) * by_t[4] * u[1] + by_t[6] * u[0] + by_t[8] * u[2]);
            by_u[2] += w * (by_t[2] + T(2) * by_t[5] * u[2] + by_t[7] * u[0] + by_t[8] * u[1]);
        }
        return by_parts;
    }

    template <int C>
    void invariants_of(int step, const T* by_rows, int width) {
        for (int k = 0; k < list_.size; ++k) {
            const size_t s = static_cast<size_t>(list_.sender[k]), t = static_cast<size_t>(list_.receiver[k]);
            invariants_back<T, C>(multipole<C>(step, list_.sender[k]), multipole<C>(step, list_.receiver[k]), &u_[3 * k],
                                  by_rows + static_cast<size_t>(k) * width, &by_mu_[s * kComponents * C],
                                  &by_mu_[t * kComponents * C], &by_u_[3 * k]);
        }
    }

    void add_edges(const T* by_rows, int width, int begin) {
        for (int k = 0; k < list_.size; ++k)
            for (int i = 0; i < kEdgeSize; ++i)
                by_e_[static_cast<size_t>(k) * padded(kEdgeSize) + i] += by_rows[static_cast<size_t>(k) * width + begin + i];
    }

    // Messages and what they change in the nodes: h(step + 1).
    void pass(const AMPModel<T>& model, int step, const T* inputs) {
        const T* h = h_[step].data();
        messages_[step] = model.message[step].forward(h, inputs, list_, of_messages_[step]);
        T* both = room(both_, static_cast<size_t>(n_) * 2 * kNodes);
        for (int i = 0; i < n_; ++i) {
            std::copy(h + i * kNodes, h + (i + 1) * kNodes, both + 2 * i * kNodes);
            std::fill(both + (2 * i + 1) * kNodes, both + (2 * i + 2) * kNodes, T(0));
        }
        for (int k = 0; k < list_.size; ++k) {
            T* to = both + (2 * static_cast<size_t>(list_.receiver[k]) + 1) * kNodes;
            const T *row = messages_[step] + static_cast<size_t>(k) * kNodes, w = w_[k];
            for (int c = 0; c < kNodes; ++c) to[c] += w * row[c];
        }
        const T* change = model.update[step].forward(both, 2 * kNodes, n_, of_updates_[step]);
        T* next = room(h_[step + 1], static_cast<size_t>(n_) * kNodes);
        for (int k = 0; k < n_ * kNodes; ++k) next[k] = h[k] + change[k];
    }

    // From h(step + 1) to h(step), in place, and to the inputs of the messages, which are returned.
    const T* pass_back(const AMPModel<T>& model, int step, T* by_h) {
        const size_t nodes = static_cast<size_t>(n_) * kNodes;
        T* g = room(scratch_, nodes);
        std::copy(by_h, by_h + nodes, g);
        const T* by_both = model.update[step].backward(g, n_, of_updates_[step]);
        for (int i = 0; i < n_; ++i)
            for (int c = 0; c < kNodes; ++c) by_h[i * kNodes + c] += by_both[2 * i * kNodes + c];
        T* by_message = room(by_messages_, static_cast<size_t>(list_.size) * kNodes);
        for (int k = 0; k < list_.size; ++k) {
            const T* from = by_both + (2 * static_cast<size_t>(list_.receiver[k]) + 1) * kNodes;
            const T *row = messages_[step] + static_cast<size_t>(k) * kNodes, w = w_[k];
            T *out = by_message + static_cast<size_t>(k) * kNodes, parts[kPad] = {};
            for (int c = 0; c < kNodes; c += kPad)
                for (int p = 0; p < kPad; ++p) parts[p] += from[c + p] * row[c + p], out[c + p] = from[c + p] * w;
            for (const T part : parts) by_w_[k] += part;
        }
        return model.message[step].backward(by_message, list_, of_messages_[step], step == 0 ? nullptr : by_h);
    }

    void geometry_back(const AMPModel<T>& model, const T* by_basis, double* by_atoms) const {
        const int width = model.edge.inputs();
        for (int k = 0; k < list_.size; ++k) {
            const double* v = &direction_[3 * k];
            double along = by_w_[k] * dw_[k], radial = 0.0;
            for (int i = 0; i < kRadial; ++i)
                along += by_basis[static_cast<size_t>(k) * width + i] * slopes_[static_cast<size_t>(k) * kRadial + i];
            for (int a = 0; a < 3; ++a) radial += by_u_[3 * k + a] * v[a];
            for (int a = 0; a < 3; ++a) {
                const double by = along * v[a] + (by_u_[3 * k + a] - radial * v[a]) / length_[k];
                by_atoms[3 * list_.receiver[k] + a] += by, by_atoms[3 * list_.sender[k] + a] -= by;
            }
        }
    }

    static constexpr double kShortest = 0.1;

    int n_ = 0;
    int64_t m_ = 0;
    EdgeList list_;
    Response response_;
    std::vector<double> length_, direction_, slopes_, dw_, softplus_, sums_, by_sums_, by_w_;
    std::vector<T> u_, w_, basis_, h_[3], mu_[2], inputs_[2], both_, scratch_;
    std::vector<T> by_u_, by_mu_, by_e_, by_h_[2], by_parts_, by_inputs_, by_messages_;
    const T *parts_[2] = {}, *messages_[2] = {}, *raw_coefficients_ = nullptr;
    EdgeTrace<T> edge_, of_multipoles_[2], of_messages_[2];
    Trace<T> of_updates_[2], of_coefficients_, of_monopoles_, of_energy_;
};

}  // namespace mlmm
