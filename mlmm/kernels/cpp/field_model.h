// Field-aware ANI: energies of ANI networks, and charges that equilibrate with electronegativities, hardnesses
// and polarisabilities by networks of the same symmetry functions; see mlmm/potentials/field_ani/network.py.
#pragma once

#include <array>

#include "equilibration.h"
#include "field_networks.h"
#include "model.h"

namespace mlmm {

// Energy, charge and dipole of an atom.
constexpr int kFieldColumns = 5;

// One evaluation, kept for its gradient.
template <class T>
struct FieldEvaluation {
    Evaluation<T> networks;
    std::vector<FieldPass<T>> passes;          // by batch
    std::vector<std::vector<T>> by_functions;  // by batch: derivatives through the networks of the field
    std::vector<double> by_energy, by_charge, by_dipole, outputs, positions;
    std::vector<double> soft, stiff;  // slopes of polarisability and hardness
    ChargedAtoms atoms;
    ChargeSlopes slopes;
    Equilibration equilibration;
    int64_t n = 0;
};

template <class T>
class FieldModel {
   public:
    // unit: kJ/mol of an electronegativity; coulomb in kJ/mol angstrom; angstrom in nm.
    FieldModel(const Functions& functions, double length, double energy, double unit, double coulomb, double angstrom)
        : unit_(unit), coulomb_(coulomb), angstrom_(angstrom) {
        ani_.functions = functions, ani_.members = 1;
        ani_.length_scale = length, ani_.energy_scale = energy;
        ani_.set_species(functions.species);
        field_.resize(functions.species), constants_.resize(functions.species);
    }

    const Functions& functions() const { return ani_.functions; }

    bool has(int element) const { return ani_.has(element); }

    // constants: electronegativity, polarisability, hardness, width, as they stand in a file.
    void put(int element, std::shared_ptr<const ElementNetworks<T>> energy,
             std::shared_ptr<const FieldNetwork<T>> field, const double* constants) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (ani_.has(element)) return;
        field_[element] = std::move(field);
        std::copy(constants, constants + 4, constants_[element].begin());
        ani_.put(element, std::move(energy));
    }

    // Outputs (n, kFieldColumns) in a potential (n) with gradient (n, 3), kJ/mol/e and nm; false if an element
    // has no networks here.
    bool forward(FieldEvaluation<T>& e, int64_t n, const double* positions, const double* cell, const int64_t* species,
                 const double* potential, const double* gradient, double total, int threads, double* outputs) {
        e.n = n;
        std::vector<int64_t> all(n);
        for (int64_t i = 0; i < n; ++i) all[i] = i;
        e.outputs.resize(kFieldOutputs * n), e.by_energy.resize(n);
        std::vector<double> own(n);
        if (!ani_.forward(e.networks, positions, n, cell, species, all.data(), n, threads, true, own.data()))
            return false;
        if (e.networks.broken) {
            std::fill(outputs, outputs + kFieldColumns * n, std::nan(""));
            return true;
        }
        const int batches = static_cast<int>(e.networks.n_batches);
        if (e.passes.size() < static_cast<size_t>(batches)) e.passes.resize(batches), e.by_functions.resize(batches);
        for_each_piece(batches, threads, [&](int b, int) {
            const Batch<T>& batch = e.networks.batches[b];
            double rows[kFieldOutputs * kBatchRows];
            field_[batch.element]->forward(batch.functions.data(), batch.rows, batch.ranges, rows, e.passes[b]);
            for (int r = 0; r < batch.rows; ++r)
                std::copy(rows + kFieldOutputs * r, rows + kFieldOutputs * (r + 1),
                          &e.outputs[kFieldOutputs * batch.place[r]]);
        });
        e.atoms.resize(n), e.soft.resize(n), e.stiff.resize(n), e.positions.resize(3 * n);
        for (int64_t i = 0; i < n; ++i) {
            const double* h = &e.outputs[kFieldOutputs * i];
            const auto& c = constants_[species[i]];
            double alpha, hardness, width, ignored;
            softplus(h[1] + c[1], alpha, e.soft[i]);
            softplus(h[2] + c[2], hardness, e.stiff[i]);
            softplus(c[3], width, ignored);
            e.atoms.slope[i] = unit_ * (h[0] + c[0]) + potential[i];
            e.atoms.softness[i] = alpha / coulomb_;
            e.atoms.hardness[i] = unit_ * hardness, e.atoms.width[i] = width;
            for (int a = 0; a < 3; ++a) {
                e.atoms.field[3 * i + a] = gradient[3 * i + a] * angstrom_;
                e.positions[3 * i + a] = positions[3 * i + a] / angstrom_;
            }
        }
        Box box;
        if (cell) {
            box.periodic = true, box.ax = cell[0] / angstrom_, box.bx = cell[3] / angstrom_;
            box.by = cell[4] / angstrom_, box.cx = cell[6] / angstrom_, box.cy = cell[7] / angstrom_;
            box.cz = cell[8] / angstrom_;
        }
        e.equilibration.solve(e.atoms, e.positions.data(), box, coulomb_, total);
        for (int64_t i = 0; i < n; ++i) {
            double* row = outputs + kFieldColumns * i;
            row[0] = own[i] + e.equilibration.energies[i], row[1] = e.equilibration.charges[i];
            for (int a = 0; a < 3; ++a) row[2 + a] = e.equilibration.dipoles[3 * i + a] * angstrom_;
        }
        return true;
    }

    // Adds derivatives by positions (n, 3), potential (n) and gradient (n, 3) for those by the outputs.
    void backward(FieldEvaluation<T>& e, const double* by_outputs, int threads, double* by_position,
                  double* by_potential, double* by_gradient) {
        const int64_t n = e.n;
        std::lock_guard<std::mutex> lock(e.networks.busy);
        if (e.networks.broken) {
            std::fill(by_position, by_position + 3 * n, std::nan(""));
            std::fill(by_potential, by_potential + n, std::nan(""));
            std::fill(by_gradient, by_gradient + 3 * n, std::nan(""));
            return;
        }
        e.by_energy.resize(n), e.by_charge.resize(n), e.by_dipole.resize(3 * n);
        for (int64_t i = 0; i < n; ++i) {
            const double* row = by_outputs + kFieldColumns * i;
            e.by_energy[i] = row[0], e.by_charge[i] = row[1];
            for (int a = 0; a < 3; ++a) e.by_dipole[3 * i + a] = row[2 + a] * angstrom_;
        }
        ChargeSlopes& s = e.slopes;
        e.equilibration.differentiate(e.atoms, e.by_energy.data(), e.by_charge.data(), e.by_dipole.data(), s);
        for (int64_t i = 0; i < n; ++i) {
            by_potential[i] += s.slope[i];
            for (int a = 0; a < 3; ++a) {
                by_gradient[3 * i + a] += s.field[3 * i + a] * angstrom_;
                by_position[3 * i + a] += s.position[3 * i + a] / angstrom_;
            }
        }
        const size_t length = ani_.functions.length();
        for_each_piece(static_cast<int>(e.networks.n_batches), threads, [&](int b, int) {
            const Batch<T>& batch = e.networks.batches[b];
            double rows[kFieldOutputs * kBatchRows];
            for (int r = 0; r < batch.rows; ++r) {
                const int64_t i = batch.place[r];
                double* h = rows + kFieldOutputs * r;
                h[0] = unit_ * s.slope[i];
                h[1] = e.soft[i] * s.softness[i] / coulomb_;
                h[2] = unit_ * e.stiff[i] * s.hardness[i];
            }
            if (e.by_functions[b].size() < length * batch.rows) e.by_functions[b].resize(length * batch.rows);
            field_[batch.element]->backward(rows, batch.rows, batch.ranges, e.by_functions[b].data(), e.passes[b]);
        });
        ani_.add_gradient(e.networks, e.by_energy.data(), threads, by_position, e.by_functions.data());
    }

   private:
    Model<T> ani_;
    double unit_, coulomb_, angstrom_;
    std::vector<std::shared_ptr<const FieldNetwork<T>>> field_;
    std::vector<std::array<double, 4>> constants_;
    std::mutex mutex_;
};

}  // namespace mlmm
