// Force-field terms with fixed atoms that networks replace, with their gradient: bonds, angles, torsions, CMAP, 1-4.
//
// Formulas, shares and images as in mlmm/blending/short_range.py, where each of them is also written in torch.
#pragma once

#include <cmath>
#include <vector>

#include "arrays.h"
#include "centres.h"

namespace mlmm {

// Value and gradient of an angle or dihedral in the vectors that span it.
template <int N>
struct Angle {
    double value = 0;
    OpenMM::Vec3 by[N];
};

// The smallest square of a cross product that still spans a plane, nm^4.
constexpr double kLine = 1e-24;

inline Angle<2> bond_angle(const OpenMM::Vec3& u, const OpenMM::Vec3& v) {
    const OpenMM::Vec3 normal = u.cross(v);
    const double squared = normal.dot(normal), sine = std::sqrt(squared < kLine ? kLine : squared), cosine = u.dot(v);
    const double both = 1.0 / (sine * sine + cosine * cosine), across = squared < kLine ? 0.0 : cosine * both / sine;
    Angle<2> angle;
    angle.value = std::atan2(sine, cosine);
    angle.by[0] = v.cross(normal) * across - v * (sine * both);
    angle.by[1] = normal.cross(u) * across - u * (sine * both);
    return angle;
}

// Of three consecutive bonds, in (-pi, pi], IUPAC sign; zero with zero gradient on a line.
inline Angle<3> dihedral(const OpenMM::Vec3& b1, const OpenMM::Vec3& b2, const OpenMM::Vec3& b3) {
    const OpenMM::Vec3 left = b1.cross(b2), right = b2.cross(b3);
    const double l = left.dot(left), r = right.dot(right), middle = std::sqrt(b2.dot(b2));
    Angle<3> angle;
    if (l < kLine || r < kLine) return angle;
    angle.value = std::atan2(middle * b1.dot(right), left.dot(right));
    angle.by[0] = left * (middle / l);
    angle.by[2] = right * (middle / r);
    // A. Blondel, M. Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27, without a division by a sine.
    angle.by[1] = left * (-b1.dot(b2) / (l * middle)) + right * (-b2.dot(b3) / (r * middle));
    return angle;
}

class MMTerms {
   public:
    explicit MMTerms(const Arrays& arrays) {
        read(arrays, "bond", 2, 2, bonds_), read(arrays, "angle", 3, 2, angles_);
        read(arrays, "torsion", 4, 3, torsions_), read(arrays, "rb", 4, 6, rbs_);
        read(arrays, "pair", 2, 3, pairs_), read(arrays, "cmap", 8, 8, cmaps_);
        const int patches = static_cast<int>(arrays.size("cmap_patches"));
        patches_ = arrays.numbers("cmap_patches", patches);
        cmap_place_ = arrays.integers("cmap_place", 2, 0, patches / 16);
        if (cmap_place_.size() / 2 != cmaps_.wraps.size()) arrays.refuse("cmap_place", "another number of terms");
        for (size_t t = 0; t < cmap_place_.size(); t += 2)
            if (cmap_place_[t + 1] < 1 ||
                16.0 * (cmap_place_[t] + 1.0 * cmap_place_[t + 1] * cmap_place_[t + 1]) > patches)
                arrays.refuse("cmap_place", "a map that ends too late");
        const std::vector<double>& ranges = arrays.numbers("ranges", 6);
        r_on_ = ranges[0], r_off_ = ranges[1], coulomb_ = ranges[5];
    }

    // sum W_t V_t; adds to the gradient (particles of the System, 3) and to the energies of atoms, of their shares of
    // the V_t. W_t is the mean weight of a term's atoms.
    double evaluate(const OpenMM::Vec3* where, const OpenMM::Vec3* box, const double* weights, double* of_atoms,
                    double* gradient) {
        where_ = where, box_ = box, weights_ = weights, of_atoms_ = of_atoms, gradient_ = gradient;
        double energy = 0.0;
        for (size_t t = 0; t < bonds_.wraps.size(); ++t) energy += bond(t);
        for (size_t t = 0; t < angles_.wraps.size(); ++t) energy += angle(t);
        for (size_t t = 0; t < torsions_.wraps.size(); ++t) energy += torsion(t);
        for (size_t t = 0; t < rbs_.wraps.size(); ++t) energy += ryckaert_bellemans(t);
        for (size_t t = 0; t < cmaps_.wraps.size(); ++t) energy += cmap(t);
        for (size_t t = 0; t < pairs_.wraps.size(); ++t) energy += pair(t);
        return energy;
    }

   private:
    struct Terms {
        std::vector<int> atoms, wraps;
        std::vector<double> numbers;
    };

    static void read(const Arrays& arrays, const std::string& name, size_t width, size_t each, Terms& terms) {
        terms.atoms = arrays.particles(name + "_atoms", width);
        const size_t n = terms.atoms.size() / width;
        terms.wraps = arrays.integers(name + "_wraps", 1, 0, 1);
        if (terms.wraps.size() != n) arrays.refuse(name + "_wraps", "another number of terms");
        // Of CMAP the shares of its eight places; parameters of all others.
        terms.numbers = arrays.numbers(name + "_numbers", n * each);
    }

    // The mean weight of some atoms; not that of a sum that is rounded where all are alike.
    double share(const int* atoms, int n) const {
        double sum = 0.0;
        for (int k = 0; k < n; ++k) sum += weights_[atoms[k]];
        return sum / n;
    }
    double given(const int* atoms, int n, double weight, double energy) {
        for (int k = 0; k < n; ++k) of_atoms_[atoms[k]] += energy / n;
        return weight * energy;
    }
    OpenMM::Vec3 between(int from, int to, int wraps) const {
        return nearest_image(where_[to] - where_[from], wraps ? box_ : nullptr);
    }
    // Adds a derivative in the vector from one atom to another.
    void push(int from, int to, const OpenMM::Vec3& slope) {
        for (int a = 0; a < 3; ++a) gradient_[3 * to + a] += slope[a], gradient_[3 * from + a] -= slope[a];
    }

    double bond(size_t t) {
        const int* i = &bonds_.atoms[2 * t];
        const double w = share(i, 2), *p = &bonds_.numbers[2 * t];
        if (w == 0.0) return 0.0;
        const OpenMM::Vec3 d = between(i[0], i[1], bonds_.wraps[t]);
        const double r = std::sqrt(d.dot(d)), stretch = r - p[0];
        push(i[0], i[1], d * (w * p[1] * stretch / r));
        return given(i, 2, w, 0.5 * p[1] * stretch * stretch);
    }

    double angle(size_t t) {
        const int* i = &angles_.atoms[3 * t];
        const double w = share(i, 3), *p = &angles_.numbers[2 * t];
        if (w == 0.0) return 0.0;
        const int wraps = angles_.wraps[t];
        const Angle<2> theta = bond_angle(between(i[1], i[0], wraps), between(i[1], i[2], wraps));
        const double bend = theta.value - p[0];
        push(i[1], i[0], theta.by[0] * (w * p[1] * bend)), push(i[1], i[2], theta.by[1] * (w * p[1] * bend));
        return given(i, 3, w, 0.5 * p[1] * bend * bend);
    }

    Angle<3> dihedral_of(const int* i, int wraps) const {
        return dihedral(between(i[0], i[1], wraps), between(i[1], i[2], wraps), between(i[2], i[3], wraps));
    }
    void twist(const int* i, const Angle<3>& phi, double slope) {
        for (int k = 0; k < 3; ++k) push(i[k], i[k + 1], phi.by[k] * slope);
    }

    double torsion(size_t t) {
        const int* i = &torsions_.atoms[4 * t];
        const double w = share(i, 4), *p = &torsions_.numbers[3 * t];
        if (w == 0.0) return 0.0;
        const Angle<3> phi = dihedral_of(i, torsions_.wraps[t]);
        const double phase = p[0] * phi.value - p[1];
        twist(i, phi, -w * p[2] * p[0] * std::sin(phase));
        return given(i, 4, w, p[2] * (1.0 + std::cos(phase)));
    }

    double ryckaert_bellemans(size_t t) {
        const int* i = &rbs_.atoms[4 * t];
        const double w = share(i, 4), *c = &rbs_.numbers[6 * t];
        if (w == 0.0) return 0.0;
        const Angle<3> phi = dihedral_of(i, rbs_.wraps[t]);
        const double x = -std::cos(phi.value);  // the cosine of phi - pi
        double value = c[5], slope = 0.0;
        for (int m = 4; m >= 0; --m) slope = slope * x + value, value = value * x + c[m];
        twist(i, phi, w * slope * std::sin(phi.value));
        return given(i, 4, w, value);
    }

    double cmap(size_t t) {
        const int* i = &cmaps_.atoms[8 * t];
        const double* shares = &cmaps_.numbers[8 * t];
        double w = 0.0;
        for (int k = 0; k < 8; ++k) w += shares[k] * weights_[i[k]];
        if (w == 0.0) return 0.0;
        const double turn = 6.283185307179586476925;
        const int size = cmap_place_[2 * t + 1];
        Angle<3> phi[2];
        int patch[2];
        double x[2];
        for (int k = 0; k < 2; ++k) {
            phi[k] = dihedral_of(i + 4 * k, cmaps_.wraps[t]);
            const double knots = (phi[k].value < 0.0 ? phi[k].value + turn : phi[k].value) * size / turn;
            // Bounds also keep an index out of what is no number, which then stays so in the energy.
            patch[k] = knots >= size - 1 ? size - 1 : knots > 0.0 ? static_cast<int>(knots) : 0;
            x[k] = knots - patch[k];
        }
        const double* c = &patches_[16 * (cmap_place_[2 * t] + patch[0] * size + patch[1])];
        double value = 0.0, slope[2] = {0.0, 0.0};
        for (int m = 3; m >= 0; --m) {
            const double* row = c + 4 * m;
            const double along = row[0] + x[1] * (row[1] + x[1] * (row[2] + x[1] * row[3]));
            slope[0] = slope[0] * x[0] + value, value = value * x[0] + along;
            slope[1] = slope[1] * x[0] + row[1] + x[1] * (2.0 * row[2] + x[1] * 3.0 * row[3]);
        }
        for (int k = 0; k < 2; ++k) twist(i + 4 * k, phi[k], w * slope[k] * size / turn);
        for (int k = 0; k < 8; ++k) of_atoms_[i[k]] += shares[k] * value;
        return w * value;
    }

    // f(r) Lennard-Jones + K q q (1/r - its smooth tail), zero beyond r_off.
    double pair(size_t t) {
        const int* i = &pairs_.atoms[2 * t];
        const double w = share(i, 2), *p = &pairs_.numbers[3 * t];
        if (w == 0.0) return 0.0;
        const OpenMM::Vec3 d = between(i[0], i[1], pairs_.wraps[t]);
        const double r = std::sqrt(d.dot(d));
        if (r >= r_off_) return 0.0;
        const double x = r > r_on_ ? (r - r_on_) / (r_off_ - r_on_) : 0.0, ratio = p[1] / r;
        const double f = 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x));
        const double f_slope = -30.0 * x * x * (1.0 - x) * (1.0 - x) / (r_off_ - r_on_);
        const double sixth = ratio * ratio * ratio * ratio * ratio * ratio;
        const double wells = 4.0 * p[2] * (sixth * sixth - sixth);
        const double wells_slope = -24.0 * p[2] * (2.0 * sixth * sixth - sixth) / r;
        const double u = r / r_off_, s = u * u, charge = coulomb_ * p[0];
        const double tail = (35.0 - s * (35.0 - s * (21.0 - 5.0 * s))) / (16.0 * r_off_);
        const double tail_slope = -u * (70.0 - s * (84.0 - 30.0 * s)) / (16.0 * r_off_ * r_off_);
        const double slope = wells_slope * f + wells * f_slope - charge * (1.0 / (r * r) + tail_slope);
        push(i[0], i[1], d * (w * slope / r));
        return given(i, 2, w, wells * f + charge * (1.0 / r - tail));
    }

    Terms bonds_, angles_, torsions_, rbs_, cmaps_, pairs_;
    std::vector<int> cmap_place_;  // of each CMAP term: its first patch, and the patches along one axis
    std::vector<double> patches_;  // (patches, 4, 4)
    double r_on_ = 0, r_off_ = 0, coulomb_ = 0;
    const OpenMM::Vec3 *where_ = nullptr, *box_ = nullptr;
    const double* weights_ = nullptr;
    double *of_atoms_ = nullptr, *gradient_ = nullptr;
};

}  // namespace mlmm
