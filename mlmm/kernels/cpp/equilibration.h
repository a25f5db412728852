// Charges by equilibration in an external potential, with the energy of a field; the formulas are those of
// mlmm/potentials/field_ani/equilibration.py. Angstrom, kJ/mol, e.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "neighbours.h"

namespace mlmm {

// log(1 + exp(x)) and its derivative, linear beyond 20 as torch has it.
inline void softplus(double x, double& value, double& slope) {
    if (x > 20.0) {
        value = x, slope = 1.0;
        return;
    }
    const double e = std::exp(x);
    value = std::log1p(e), slope = e / (1.0 + e);
}

// Of each atom: electronegativity with the potential, hardness, width, polarisability over k, and the field.
struct ChargedAtoms {
    std::vector<double> slope, hardness, width, softness, field;

    void resize(int64_t n) {
        for (auto* v : {&slope, &hardness, &width, &softness}) v->resize(n);
        field.resize(3 * n);
    }
};

// Derivatives of what an evaluation gave by what it was made of.
struct ChargeSlopes {
    std::vector<double> slope, hardness, softness, field, position;
};

class Equilibration {
   public:
    std::vector<double> energies, charges, dipoles;  // dipoles in e angstrom

    // Total energy of charges and dipoles in shares of the atoms; positions (n, 3) in angstrom.
    void solve(const ChargedAtoms& atoms, const double* positions, const Box& box, double coulomb, double total) {
        const int64_t n = static_cast<int64_t>(atoms.slope.size());
        n_ = n, coulomb_ = coulomb;
        matrix_.resize(n * n), apart_.resize(3 * n * n);
        for (int64_t i = 0; i < n; ++i) {
            const double own = 2.0 * atoms.width[i] * atoms.width[i];
            matrix_[i * n + i] = coulomb / std::sqrt(own) + atoms.hardness[i];
            for (int64_t j = 0; j < i; ++j) {
                double d[3];
                for (int a = 0; a < 3; ++a) d[a] = positions[3 * i + a] - positions[3 * j + a];
                if (box.periodic) box.shorten(d[0], d[1], d[2]);
                const double square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] +
                                      atoms.width[i] * atoms.width[i] + atoms.width[j] * atoms.width[j];
                matrix_[i * n + j] = matrix_[j * n + i] = coulomb / std::sqrt(square);
                for (int a = 0; a < 3; ++a) apart_[3 * (i * n + j) + a] = d[a];
            }
        }
        factorise();
        unit_.assign(n, 1.0);
        substitute(unit_);
        sum_of_unit_ = sum(unit_);
        charges.resize(n);
        for (int64_t i = 0; i < n; ++i) charges[i] = -atoms.slope[i];
        substitute(charges);
        const double excess = (sum(charges) - total) / sum_of_unit_;
        for (int64_t i = 0; i < n; ++i) charges[i] -= unit_[i] * excess;
        answer_.resize(n), energies.resize(n), dipoles.resize(3 * n);
        for (int64_t i = 0; i < n; ++i) {
            double response = 0.0, square = 0.0;
            for (int64_t j = 0; j < n; ++j) response += matrix_[i * n + j] * charges[j];
            for (int a = 0; a < 3; ++a) {
                const double f = atoms.field[3 * i + a];
                dipoles[3 * i + a] = -atoms.softness[i] * f, square += f * f;
            }
            answer_[i] = atoms.slope[i] + 0.5 * response;
            energies[i] = charges[i] * answer_[i] - 0.5 * atoms.softness[i] * square;
        }
    }

    // Derivatives of sum by_energy·energies + by_charge·charges + by_dipole·dipoles; positions in angstrom.
    void differentiate(const ChargedAtoms& atoms, const double* by_energy, const double* by_charge,
                       const double* by_dipole, ChargeSlopes& out) {
        const int64_t n = n_;
        out.slope.resize(n), out.hardness.resize(n), out.softness.resize(n), out.field.resize(3 * n);
        out.position.assign(3 * n, 0.0);
        // The charges answer: dq = -P (dslope + dA q), P the inverse of A on changes that add up to zero.
        reply_.resize(n);
        for (int64_t i = 0; i < n; ++i) {
            double sum = by_charge[i] + by_energy[i] * answer_[i];
            for (int64_t j = 0; j < n; ++j) sum += 0.5 * matrix_[i * n + j] * by_energy[j] * charges[j];
            reply_[i] = sum;
        }
        substitute(reply_);
        const double mean = sum(reply_) / sum_of_unit_;
        for (int64_t i = 0; i < n; ++i) reply_[i] -= unit_[i] * mean;
        for (int64_t i = 0; i < n; ++i) {
            out.slope[i] = by_energy[i] * charges[i] - reply_[i];
            out.hardness[i] = charges[i] * (0.5 * by_energy[i] * charges[i] - reply_[i]);
            double by_softness = 0.0;
            for (int a = 0; a < 3; ++a) {
                const double f = atoms.field[3 * i + a], g = by_dipole[3 * i + a];
                by_softness -= f * (0.5 * by_energy[i] * f + g);
                out.field[3 * i + a] = -atoms.softness[i] * (by_energy[i] * f + g);
            }
            out.softness[i] = by_softness;
            for (int64_t j = 0; j < i; ++j) {
                const double both = 0.5 * (by_energy[i] + by_energy[j]) * charges[i] * charges[j] -
                                    reply_[i] * charges[j] - reply_[j] * charges[i];
                const double element = matrix_[i * n + j] / coulomb_;
                const double factor = -both * coulomb_ * element * element * element;
                for (int a = 0; a < 3; ++a) {
                    const double pull = factor * apart_[3 * (i * n + j) + a];
                    out.position[3 * i + a] += pull, out.position[3 * j + a] -= pull;
                }
            }
        }
    }

   private:
    // Cholesky's lower triangle; what is not positive becomes not-a-number and reaches the caller.
    void factorise() {
        const int64_t n = n_;
        lower_ = matrix_;
        for (int64_t i = 0; i < n; ++i) {
            double* row = &lower_[i * n];
            for (int64_t j = 0; j <= i; ++j) {
                const double* other = &lower_[j * n];
                double s = row[j];
                for (int64_t k = 0; k < j; ++k) s -= row[k] * other[k];
                row[j] = i == j ? std::sqrt(s) : s / other[j];
            }
        }
    }

    void substitute(std::vector<double>& x) const {
        const int64_t n = n_;
        for (int64_t i = 0; i < n; ++i) {
            double s = x[i];
            for (int64_t k = 0; k < i; ++k) s -= lower_[i * n + k] * x[k];
            x[i] = s / lower_[i * n + i];
        }
        for (int64_t i = n; i-- > 0;) {
            x[i] /= lower_[i * n + i];
            for (int64_t k = 0; k < i; ++k) x[k] -= lower_[i * n + k] * x[i];
        }
    }

    static double sum(const std::vector<double>& x) {
        double total = 0.0;
        for (const double v : x) total += v;
        return total;
    }

    int64_t n_ = 0;
    double coulomb_ = 1.0, sum_of_unit_ = 1.0;
    std::vector<double> matrix_, lower_, apart_, unit_, answer_, reply_;
};

}  // namespace mlmm
