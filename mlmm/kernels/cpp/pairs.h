// Short-range force-field energies of pairs, with their gradient.
//
// V = f Lennard-Jones (x the force field's own f) + K q q (1/r - smooth tail), as in mlmm/pair_formulas.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "neighbours.h"

namespace mlmm {

// nm and kJ/mol; the switch of Lennard-Jones ends at the cutoff of the force field.
struct PairRanges {
    double r_on, r_off;
    bool switched;
    double switch_on, cutoff;
    double coulomb;
};

// What the force field says about atoms and pairs of atoms.
struct PairField {
    int64_t n_atoms;
    const double* parameters;  // (atoms, 3): charge, half sigma, root of epsilon
    // Partners of each atom in pairs with parameters of their own: from start[i] to start[i + 1].
    const int64_t *special_start, *special_other;
};

// 1 - x^3 (10 - 15 x + 6 x^2) between `on` and `on + width`, and its slope.
inline void switching_function(double r, double on, double width, double& f, double& slope) {
    double x = (r - on) / width;
    x = x < 0.0 ? 0.0 : x;
    x = x > 1.0 ? 1.0 : x;
    f = 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x));
    slope = -30.0 * x * x * (1.0 - x) * (1.0 - x) / width;
}

class PairEnergies {
   public:
    int64_t size() const { return size_; }

    // All pairs of an active atom and one among `seen`, each once.
    void evaluate(const PairField& field, const PairRanges& ranges, const double* positions, const double* cell,
                  const int64_t* active, int64_t n_active, const int64_t* seen, int64_t n_seen) {
        n_atoms_ = field.n_atoms, size_ = 0;
        broken_ = !search_.build(positions, n_seen, cell, 1.0, active, n_active, ranges.r_off, seen);
        if (broken_) {
            fill_broken(active, n_active);
            return;
        }
        collect(field, active, n_active);
        if (ranges.switched)
            energies<true>(ranges);
        else
            energies<false>(ranges);
    }

    // Both atoms of each pair and half of its energy.
    void take(int64_t* first, int64_t* second, double* half) const {
        std::copy_n(first_.data(), size_, first);
        std::copy_n(second_.data(), size_, second);
        std::copy_n(half_.data(), size_, half);
    }

    // Adds to `gradient` (atoms, 3) that of the halves, each times its factor.
    void backward(const double* by_half, double* gradient) const {
        if (broken_) {
            std::fill(gradient, gradient + 3 * n_atoms_, std::nan(""));
            return;
        }
        for (int64_t p = 0; p < size_; ++p) {
            const double x = by_half[p] * x_[p], y = by_half[p] * y_[p], z = by_half[p] * z_[p];
            double *own = gradient + 3 * first_[p], *other = gradient + 3 * second_[p];
            own[0] -= x, own[1] -= y, own[2] -= z;
            other[0] += x, other[1] += y, other[2] += z;
        }
    }

    // sum (w_i + w_j)/2 V_ij; adds its gradient to `gradient` (atoms, 3).
    double shared(const double* weights, double* gradient) {
        both_.resize(size_);
        double energy = 0.0;
        for (int64_t p = 0; p < size_; ++p) {
            both_[p] = weights[first_[p]] + weights[second_[p]];
            energy += both_[p] * half_[p];
        }
        backward(both_.data(), gradient);
        return energy;
    }

    // Adds the energy of each atom (atoms,): half of every pair.
    void add_halves(double* energies) const {
        for (int64_t p = 0; p < size_; ++p) energies[first_[p]] += half_[p];
        // Every active atom with itself, once.
        for (int64_t p = 0; p < size_ && !broken_; ++p) energies[second_[p]] += half_[p];
    }

   private:
    void reserve(size_t n) {
        if (first_.size() >= n) return;
        n += n / 2;
        for (auto* v : {&first_, &second_}) v->resize(n);
        for (auto* v : {&x_, &y_, &z_, &squared_, &charge_, &sigma_, &epsilon_, &half_}) v->resize(n);
    }

    // Every active atom with itself, so that each of them gets an energy that is no number.
    void fill_broken(const int64_t* active, int64_t n_active) {
        reserve(n_active);
        size_ = n_active;
        std::copy_n(active, n_active, first_.begin());
        std::copy_n(active, n_active, second_.begin());
        std::fill_n(half_.begin(), n_active, std::nan(""));
    }

    void collect(const PairField& field, const int64_t* active, int64_t n_active) {
        active_.assign(n_atoms_, 0), special_.assign(n_atoms_, 0);
        for (int64_t c = 0; c < n_active; ++c) active_[active[c]] = 1;
        for (int64_t c = 0; c < n_active; ++c) {
            const int64_t i = active[c];
            const int64_t begin = field.special_start[i], end = field.special_start[i + 1];
            search_.find(i, found_);
            reserve(size_ + found_.size);
            for (int64_t s = begin; s < end; ++s) special_[field.special_other[s]] = 1;
            const double* own = field.parameters + 3 * i;
            int64_t p = size_;
            for (int k = 0; k < found_.size; ++k) {
                const int64_t j = found_.atom[k];
                const double* other = field.parameters + 3 * j;
                first_[p] = i, second_[p] = j;
                x_[p] = found_.x[k], y_[p] = found_.y[k], z_[p] = found_.z[k], squared_[p] = found_.squared[k];
                charge_[p] = own[0] * other[0];
                sigma_[p] = own[1] + other[1];
                epsilon_[p] = own[2] * other[2];
                // A pair of two active atoms is found from both sides.
                p += ((i < j) | !active_[j]) & !special_[j];
            }
            size_ = p;
            for (int64_t s = begin; s < end; ++s) special_[field.special_other[s]] = 0;
        }
    }

    // Halves, and in place of the vectors the gradient of the halves in the second atom.
    template <bool Switched>
    void energies(const PairRanges& ranges) {
        const double r_on = ranges.r_on, width = ranges.r_off - ranges.r_on, inverse_off = 1.0 / ranges.r_off;
        const double switch_on = ranges.switch_on, switch_width = ranges.cutoff - ranges.switch_on;
        const double half_coulomb = 0.5 * ranges.coulomb, sixteenth = inverse_off / 16.0;
        const double *squared = squared_.data(), *charge = charge_.data();
        const double *sigma = sigma_.data(), *epsilon = epsilon_.data();
        double* __restrict x = x_.data();
        double* __restrict y = y_.data();
        double* __restrict z = z_.data();
        double* __restrict half = half_.data();
        const int64_t n = size_;
#pragma omp simd
        for (int64_t p = 0; p < n; ++p) {
            const double r = std::sqrt(squared[p]), inverse = 1.0 / r;
            double sixth = sigma[p] * inverse;
            sixth *= sixth;
            sixth = sixth * sixth * sixth;
            double wells = 2.0 * epsilon[p] * (sixth * sixth - sixth);
            double wells_slope = -12.0 * epsilon[p] * (2.0 * sixth * sixth - sixth) * inverse;
            double f, slope;
            switching_function(r, r_on, width, f, slope);
            wells_slope = wells_slope * f + wells * slope;
            wells *= f;
            if (Switched) {
                switching_function(r, switch_on, switch_width, f, slope);
                wells_slope = wells_slope * f + wells * slope;
                wells *= f;
            }
            const double u = r * inverse_off, s = u * u, k = half_coulomb * charge[p];
            const double tail = (35.0 - s * (35.0 - s * (21.0 - 5.0 * s))) * sixteenth;
            const double tail_slope = -u * (70.0 - s * (84.0 - 30.0 * s)) * sixteenth * inverse_off;
            half[p] = wells + k * (inverse - tail);
            const double along = (wells_slope - k * (inverse * inverse + tail_slope)) * inverse;
            x[p] *= along, y[p] *= along, z[p] *= along;
        }
    }

    NeighbourSearch search_;
    Found found_;
    int64_t n_atoms_ = 0, size_ = 0;
    bool broken_ = false;
    std::vector<int64_t> first_, second_;
    std::vector<double> x_, y_, z_, squared_, charge_, sigma_, epsilon_, half_, both_;
    std::vector<char> active_, special_;
};

}  // namespace mlmm
