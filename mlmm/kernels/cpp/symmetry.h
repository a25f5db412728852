// Symmetry functions of ANI and their derivatives, doi 10.1039/C6SC05720A, eqs. 3 and 4; all in float64.
#pragma once

#include <cmath>
#include <vector>

#include "neighbours.h"
#include "simd.h"

namespace mlmm {

// Constants, lengths in angstrom, and where the functions of each element and pair of elements stand.
struct Functions {
    int species = 0;
    double radial_cutoff = 0, angular_cutoff = 0;
    std::vector<double> eta_radial, shift_radial;  // one entry for each function
    std::vector<double> eta_mean, shift_mean;      // factors of an angular function: by mean distance …
    std::vector<double> zeta, half_cos, half_sin;  // … and by angle
    int radial_width = 0, angular_width = 0;       // of one block, padded
    std::vector<int> pair;                         // (species, species) to pair of elements

    int radial() const { return static_cast<int>(eta_radial.size()); }
    int means() const { return static_cast<int>(eta_mean.size()); }
    int angles() const { return static_cast<int>(zeta.size()); }
    int pairs() const { return species * (species + 1) / 2; }
    int blocks() const { return species + pairs(); }
    // Begin of a block: first the elements, then the pairs of elements.
    int begin(int block) const {
        return block < species ? block * radial_width
                               : species * radial_width + (block - species) * angular_width;
    }
    int length() const { return begin(blocks()); }
};

// From lists one after the other. sizes: species, radial functions, factors by mean distance, factors by angle;
// constants: both cutoffs, the scales of length (angstrom) and energy, then the parameters of the functions.
inline Functions read_functions(const int64_t* sizes, const double* constants, double& length, double& energy) {
    Functions f;
    const double* next = constants;
    f.species = static_cast<int>(sizes[0]);
    f.radial_cutoff = *next++, f.angular_cutoff = *next++;
    length = *next++, energy = *next++;
    const auto take = [&next](std::vector<double>& list, int64_t n) {
        list.assign(next, next + n);
        next += n;
    };
    take(f.eta_radial, sizes[1]), take(f.shift_radial, sizes[1]);
    take(f.eta_mean, sizes[2]), take(f.shift_mean, sizes[2]);
    take(f.zeta, sizes[3]);
    std::vector<double> angle;
    take(angle, sizes[3]);
    for (const double a : angle) f.half_cos.push_back(0.5 * std::cos(a)), f.half_sin.push_back(0.5 * std::sin(a));
    f.radial_width = padded(f.radial()), f.angular_width = padded(f.means() * f.angles());
    f.pair.resize(f.species * f.species);
    for (int s = 0, k = 0; s < f.species; ++s)
        for (int t = s; t < f.species; ++t, ++k) f.pair[s * f.species + t] = f.pair[t * f.species + s] = k;
    return f;
}

// Neighbours of the rows of a batch: for each row and element one padded run.
struct Shell {
    std::vector<double> r, x, y, z, f, df;
    std::vector<int> atom;          // in the radial shell atoms, in the angular one places in the radial
    std::vector<int> begin, count;  // (rows, species)
    int size = 0;

    void clear() { size = 0, begin.clear(), count.clear(); }

    int open(int n) {
        const int first = size;
        begin.push_back(first), count.push_back(n);
        size += padded(n);
        if (static_cast<int>(atom.size()) < size) {
            const size_t room = static_cast<size_t>(size) + size / 2 + 256;
            for (auto* v : {&r, &x, &y, &z, &f, &df}) v->resize(room);
            atom.resize(room);
        }
        return first;
    }

    void set(int k, double distance, double ux, double uy, double uz, int which) {
        r[k] = distance, x[k] = ux, y[k] = uy, z[k] = uz, atom[k] = which;
    }

    // Entries that fill a run up stand at the cutoff, where everything is zero.
    void close(int first, int n, double cutoff) {
        for (int k = first + n; k < first + padded(n); ++k) set(k, cutoff, 0, 0, 0, -1);
    }

    void switch_off(double cutoff) {
        for (int k = 0; k < size; k += Lanes<double>::n) {
            VectorD value, slope;
            cutoff_function(load(&r[k]), cutoff, value, slope);
            store(&f[k], value), store(&df[k], slope);
        }
        const int runs = static_cast<int>(begin.size());
        for (int s = 0; s < runs; ++s)
            for (int k = begin[s] + count[s]; k < begin[s] + padded(count[s]); ++k) f[k] = 0, df[k] = 0;
    }
};

// Pairs of neighbours of one centre, as arrays.
struct Triples {
    std::vector<double> cosine, sine, mean, weight;  // 0.95 cos, its sine, mean distance, 2 f f
    std::vector<double> by_cosine, by_mean, by_weight;
    int size = 0;

    void reserve(size_t n) {
        n = padded(static_cast<int>(n));
        if (cosine.size() >= n) return;
        n += n / 2;
        for (auto* v : {&cosine, &sine, &mean, &weight, &by_cosine, &by_mean, &by_weight}) v->resize(n);
    }
};

constexpr int kChunk = 64;

struct SymmetryScratch {
    Found found;
    Triples triples;
    std::vector<int> counts;
    std::vector<double> distances, sums, by_mean, by_angle, slopes;
    std::vector<double> gx, gy, gz, along, radial;  // of the angular neighbours of one centre
};

// exp(−eta (r − shift)²) at equally spaced shifts from two exponentials: each is the one before times a factor
// that itself changes by a constant factor. Only where `ladder` found it exact.
struct Ladder {
    bool exact = false;
    double step = 0, change = 0;
};

// Whether the widths are one and the shifts equally spaced, so far apart from underflow that nothing is lost.
inline Ladder ladder(const std::vector<double>& eta, const std::vector<double>& shift, double cutoff) {
    Ladder result;
    if (eta.size() < 3) return result;
    result.step = (shift.back() - shift[0]) / (shift.size() - 1);
    result.change = std::exp(-2.0 * eta[0] * result.step * result.step);
    const double farthest = std::max(cutoff - shift[0], shift[0]);
    result.exact = result.step > 0 && eta[0] * farthest * farthest < 500 && result.change > 0;
    for (size_t k = 0; k < eta.size(); ++k)
        if (eta[k] != eta[0] || std::fabs(shift[0] + k * result.step - shift[k]) > 1e-13) result.exact = false;
    return result;
}

class Gaussians {
   public:
    Gaussians(const Ladder& ladder, const std::vector<double>& eta, const std::vector<double>& shift, VectorD r)
        : ladder_(ladder), eta_(eta), shift_(shift), r_(r) {
        if (!ladder_.exact) return;
        const VectorD d = r - shift[0];
        value_ = exponential(-eta[0] * d * d);
        factor_ = exponential(eta[0] * ladder.step * (2.0 * d - ladder.step));
    }

    // The k-th, asked for one after the other.
    VectorD next(int k) {
        if (!ladder_.exact) {
            const VectorD d = r_ - shift_[k];
            return exponential(-eta_[k] * d * d);
        }
        const VectorD result = value_;
        value_ *= factor_;
        factor_ *= ladder_.change;
        return result;
    }

   private:
    const Ladder& ladder_;
    const std::vector<double>&eta_, &shift_;
    VectorD r_, value_{}, factor_{};
};

// x to the power of a positive whole number or, through the logarithm, of any other.
inline VectorD power(VectorD x, double exponent) {
    const int whole = static_cast<int>(exponent);
    if (whole != exponent || whole < 1 || whole > 1024) return exponential(logarithm(x) * exponent);
    int bit = 1;
    while (bit * 2 <= whole) bit *= 2;
    VectorD result = x;
    for (bit /= 2; bit; bit /= 2) {
        result = result * result;
        if (whole & bit) result = result * x;
    }
    return result;
}

class SymmetryFunctions {
   public:
    explicit SymmetryFunctions(const Functions& functions)
        : f_(functions),
          by_distance_(ladder(functions.eta_radial, functions.shift_radial, functions.radial_cutoff)),
          by_mean_(ladder(functions.eta_mean, functions.shift_mean, functions.angular_cutoff)) {}

    // Appends one row to both shells.
    void neighbours(const NeighbourSearch& search, const int64_t* species, int64_t centre, Shell& radial,
                    Shell& angular, SymmetryScratch& scratch) const {
        Found& found = scratch.found;
        search.find(centre, found);
        const double near = f_.angular_cutoff;
        scratch.distances.resize(found.atom.size());
        double* r = scratch.distances.data();
        for (int k = 0; k < found.size; ++k) r[k] = std::sqrt(found.squared[k]);
        scratch.counts.assign(2 * f_.species, 0);
        int* all = scratch.counts.data();
        int* inside = all + f_.species;
        for (int k = 0; k < found.size; ++k) {
            const int64_t s = species[found.atom[k]];
            ++all[s];
            inside[s] += r[k] < near;
        }
        for (int s = 0; s < f_.species; ++s) {
            const int first = radial.open(all[s]), first_inside = angular.open(inside[s]);
            radial.close(first, all[s], f_.radial_cutoff);
            angular.close(first_inside, inside[s], near);
            // From here on the next free places.
            all[s] = first, inside[s] = first_inside;
        }
        for (int k = 0; k < found.size; ++k) {
            const int64_t s = species[found.atom[k]];
            const double inverse = 1.0 / r[k];
            const double x = found.x[k] * inverse, y = found.y[k] * inverse, z = found.z[k] * inverse;
            if (r[k] < near) angular.set(inside[s]++, r[k], x, y, z, all[s]);
            radial.set(all[s]++, r[k], x, y, z, found.atom[k]);
        }
    }

    // All functions of one row; `out` is zero before.
    template <class T>
    void values(const Shell& radial, const Shell& angular, int row, T* out, SymmetryScratch& scratch) const {
        const int species = f_.species;
        for (int s = 0; s < species; ++s) {
            const int n = radial.count[row * species + s], first = radial.begin[row * species + s];
            T* block = out + f_.begin(s);
            if (n == 0) continue;
            scratch.sums.assign(static_cast<size_t>(f_.radial()) * kLanes, 0.0);
            for (int i = first; i < first + n; i += kLanes) {
                Gaussians gaussians(by_distance_, f_.eta_radial, f_.shift_radial, load(&radial.r[i]));
                const VectorD f = load(&radial.f[i]);
                for (int k = 0; k < f_.radial(); ++k) {
                    double* sum = &scratch.sums[k * kLanes];
                    store(sum, load(sum) + gaussians.next(k) * f);
                }
            }
            for (int k = 0; k < f_.radial(); ++k)
                block[k] = static_cast<T>(0.25 * sum_of<double>(load(&scratch.sums[k * kLanes])));
        }
        const int n_terms = f_.means() * f_.angles();
        for (int s = 0; s < species; ++s) {
            for (int t = s; t < species; ++t) {
                if (!collect(angular, row, s, t, scratch.triples)) continue;
                scratch.sums.assign(static_cast<size_t>(n_terms) * kLanes, 0.0);
                for (int begin = 0; begin < scratch.triples.size; begin += kChunk) {
                    const int n = std::min(kChunk, scratch.triples.size - begin);
                    factors<false>(scratch.triples, begin, n, scratch);
                    outer_products(n, scratch);
                }
                T* block = out + f_.begin(species + f_.pair[s * species + t]);
                for (int k = 0; k < n_terms; ++k)
                    block[k] = static_cast<T>(sum_of<double>(load(&scratch.sums[k * kLanes])));
            }
        }
    }

    // Gradient in the vectors to the neighbours of one row, from that in its functions; to the places of the
    // radial shell.
    void gradient(const Shell& radial, const Shell& angular, int row, const double* by_function, double* gx,
                  double* gy, double* gz, SymmetryScratch& scratch) const {
        const int species = f_.species;
        for (int s = 0; s < species; ++s) {
            const int n = radial.count[row * species + s], first = radial.begin[row * species + s];
            const double* block = by_function + f_.begin(s);
            for (int i = first; i < first + n; i += kLanes) {
                const VectorD r = load(&radial.r[i]), f = load(&radial.f[i]), df = load(&radial.df[i]);
                Gaussians gaussians(by_distance_, f_.eta_radial, f_.shift_radial, r);
                VectorD sum{};
                for (int k = 0; k < f_.radial(); ++k) {
                    const VectorD slope = df - (2.0 * f_.eta_radial[k]) * (r - f_.shift_radial[k]) * f;
                    sum += block[k] * gaussians.next(k) * slope;
                }
                sum *= 0.25;
                store(gx + i, sum * load(&radial.x[i]));
                store(gy + i, sum * load(&radial.y[i]));
                store(gz + i, sum * load(&radial.z[i]));
            }
        }
        angular_gradient(angular, row, by_function, gx, gy, gz, scratch);
    }

   private:
    static constexpr int kLanes = Lanes<double>::n;

    // Triples of the neighbours of elements s <= t, filled up with triples of weight zero.
    bool collect(const Shell& shell, int row, int s, int t, Triples& out) const {
        const int* counts = &shell.count[row * f_.species];
        const int* begins = &shell.begin[row * f_.species];
        const int n = s == t ? counts[s] * (counts[s] - 1) / 2 : counts[s] * counts[t];
        if (n == 0) return false;
        out.reserve(n);
        double* __restrict cosine = out.cosine.data();
        double* __restrict mean = out.mean.data();
        double* __restrict weight = out.weight.data();
        const double *x = shell.x.data(), *y = shell.y.data(), *z = shell.z.data();
        const double *r = shell.r.data(), *f = shell.f.data();
        int at = 0;
        for (int i = begins[s]; i < begins[s] + counts[s]; ++i) {
            const int first = s == t ? i + 1 : begins[t], last = begins[t] + counts[t];
            const double xi = 0.95 * x[i], yi = 0.95 * y[i], zi = 0.95 * z[i], ri = r[i], fi = 2.0 * f[i];
            for (int j = first; j < last; ++j) {
                cosine[at + j - first] = xi * x[j] + yi * y[j] + zi * z[j];
                mean[at + j - first] = 0.5 * (ri + r[j]);
                weight[at + j - first] = fi * f[j];
            }
            at += last - first;
        }
        for (int k = at; k < padded(at); ++k) cosine[k] = 0, mean[k] = f_.angular_cutoff, weight[k] = 0;
        out.size = padded(at);
        double* __restrict sine = out.sine.data();
        for (int k = 0; k < out.size; ++k) sine[k] = std::sqrt(1.0 - cosine[k] * cosine[k]);
        return true;
    }

    // The factors by mean distance (times the weight) and by angle, each as rows of kChunk.
    template <bool Slopes>
    void factors(const Triples& triples, int begin, int n, SymmetryScratch& scratch) const {
        scratch.by_mean.resize(static_cast<size_t>(f_.means()) * kChunk);
        scratch.by_angle.resize(static_cast<size_t>(f_.angles()) * kChunk);
        if (Slopes) scratch.slopes.resize(static_cast<size_t>(f_.angles()) * kChunk);
        for (int k = 0; k < n; k += kLanes) {
            const VectorD mean = load(&triples.mean[begin + k]);
            const VectorD weight = load(&triples.weight[begin + k]);
            Gaussians gaussians(by_mean_, f_.eta_mean, f_.shift_mean, mean);
            for (int a = 0; a < f_.means(); ++a) {
                VectorD e = gaussians.next(a);
                if (!Slopes) e *= weight;
                store(&scratch.by_mean[a * kChunk + k], e);
            }
            const VectorD cosine = load(&triples.cosine[begin + k]), sine = load(&triples.sine[begin + k]);
            const VectorD tangent = Slopes ? cosine / sine : cosine;
            for (int z = 0; z < f_.angles(); ++z) {
                VectorD x = 0.5 + cosine * f_.half_cos[z] + sine * f_.half_sin[z];
                // Never reached with angles between 0 and pi.
                x = x < 1e-12 ? broadcast(1e-12) : x;
                if (Slopes) {
                    const VectorD p = power(x, f_.zeta[z] - 1.0);
                    store(&scratch.by_angle[z * kChunk + k], p * x);
                    store(&scratch.slopes[z * kChunk + k],
                          f_.zeta[z] * p * (f_.half_cos[z] - tangent * f_.half_sin[z]));
                } else {
                    store(&scratch.by_angle[z * kChunk + k], power(x, f_.zeta[z]));
                }
            }
        }
    }

    template <int Means, int Angles>
    void product_tile(int a, int z, int n, SymmetryScratch& scratch) const {
        VectorD sums[Means][Angles];
        double* there = scratch.sums.data();
        const int angles = f_.angles();
        for (int i = 0; i < Means; ++i)
            for (int j = 0; j < Angles; ++j) sums[i][j] = load(there + ((a + i) * angles + z + j) * kLanes);
        for (int k = 0; k < n; k += kLanes) {
            VectorD angle[Angles];
            for (int j = 0; j < Angles; ++j) angle[j] = load(&scratch.by_angle[(z + j) * kChunk + k]);
            for (int i = 0; i < Means; ++i) {
                const VectorD mean = load(&scratch.by_mean[(a + i) * kChunk + k]);
                for (int j = 0; j < Angles; ++j) sums[i][j] += mean * angle[j];
            }
        }
        for (int i = 0; i < Means; ++i)
            for (int j = 0; j < Angles; ++j) store(there + ((a + i) * angles + z + j) * kLanes, sums[i][j]);
    }

    void outer_products(int n, SymmetryScratch& scratch) const {
        const int step_a = f_.means() % 4 ? 1 : 4, step_z = f_.angles() % 4 ? 1 : 4;
        for (int a = 0; a < f_.means(); a += step_a) {
            for (int z = 0; z < f_.angles(); z += step_z) {
                if (step_a == 4 && step_z == 4)
                    product_tile<4, 4>(a, z, n, scratch);
                else if (step_a == 4)
                    product_tile<4, 1>(a, z, n, scratch);
                else if (step_z == 4)
                    product_tile<1, 4>(a, z, n, scratch);
                else
                    product_tile<1, 1>(a, z, n, scratch);
            }
        }
    }

    void angular_gradient(const Shell& shell, int row, const double* by_function, double* gx, double* gy,
                          double* gz, SymmetryScratch& scratch) const;

    void triple_gradient(const double* block, int begin, int n, SymmetryScratch& scratch) const;

    const Functions& f_;
    const Ladder by_distance_, by_mean_;
};

}  // namespace mlmm
