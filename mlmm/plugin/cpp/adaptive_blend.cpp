// A zone that moves with the atoms: E = sum_i lambda_i (eps_i^ML - eps_i^MM) - sum_m [lambda_m a + G(lambda_m)] + the
// pairs inside the core, which left OpenMM; see mlmm/blending/adaptive.py, the same in torch.
#include <algorithm>
#include <cmath>

#include "mm_terms.h"
#include "networks.h"
#include "places.h"
#include "zone_weights.h"

using OpenMM::Vec3;

namespace mlmm {

namespace {

class AdaptiveBlend : public Blend {
   public:
    AdaptiveBlend(const BlendForce& force, const Arrays& arrays)
        : zone(arrays), terms(arrays), networks(*force.committee, force.twofold), n(arrays.n_particles()),
          special(arrays, "special", n), core(arrays.particles("core")),
          core_special(arrays, "core_special", static_cast<int>(core.size())),
          members_of_committee(force.committee->members) {
        places.particles = arrays.different_particles("seen");
        const int elements = static_cast<int>(force.committee->elements.size());
        species = wide(arrays.integers("elements", 1, 0, elements - 1));
        if (species.size() != places.particles.size()) arrays.refuse("elements", "another number of atoms");
        place_of.assign(n, -1);
        for (size_t k = 0; k < places.particles.size(); ++k) place_of[places.particles[k]] = static_cast<int>(k);
        slots = core, owner.assign(core.size(), -1);
        for (size_t m = 0; m + 1 < zone.start.size(); ++m)
            for (int i = zone.start[m]; i < zone.start[m + 1]; ++i) slots.push_back(zone.atoms[i]), owner.push_back(m);
        std::vector<char> once(n, 0);
        for (const int atom : slots) {
            if (once[atom]) arrays.refuse("molecule_atoms", "particle " + std::to_string(atom) + " twice");
            once[atom] = 1;
            if (place_of[atom] >= 0 && force.committee->networks[species[place_of[atom]]].empty())
                arrays.refuse("elements", "an element without networks");
        }
        owned = wide(arrays.different_particles("owned"));
        is_owned.assign(n, 0);
        for (const int64_t atom : owned) is_owned[atom] = 1;
        parameters = arrays.numbers("parameters", 3 * n), ranges = arrays.numbers("ranges", 6);
        pairs_periodic = arrays.numbers("pairs_periodic", 1)[0] != 0.0;
        read_core(arrays), read_compensation(arrays);
        weight.resize(n), of_atoms.resize(n), gradient.resize(3 * static_cast<size_t>(n));
    }

    double evaluate(const Vec3* where, const Vec3* box, int threads, Vec3* forces) override {
        find_active(where, box);
        std::fill(gradient.begin(), gradient.end(), 0.0);
        double energy = of_networks(where, box, threads, forces);
        energy -= replaced(where, box);
        for (size_t k = 0; k < active.size(); ++k)
            if (owner[active[k]] >= 0) by_lambda[owner[active[k]]] -= of_atoms[slots[active[k]]];
        // What is subtracted pulls the other way.
        for (double& g : gradient) g = -g;
        energy += core_pairs(where, box, threads);
        for (size_t m = 0; m < zone.lambda.size(); ++m) energy += compensation(m);
        for (int i = 0; i < n; ++i) forces[i] -= Vec3(gradient[3 * i], gradient[3 * i + 1], gradient[3 * i + 2]);
        zone.add_forces(by_lambda, where, box, forces);
        return energy;
    }

    void members(const Vec3* where, const Vec3* box, int threads, bool forces, MemberEnergies& result) override {
        find_active(where, box);
        gather(where, box);
        const size_t count = centres.size(), size = members_of_committee * count;
        networks.energies(positions, box ? cell : nullptr, species, centres, threads, forces, eps);
        result.particles.clear(), result.energies.resize(size);
        for (size_t c = 0; c < count; ++c) result.particles.push_back(places.particles[centres[c]]);
        for (size_t k = 0; k < size; ++k) result.energies[k] = eps[k] * weight[result.particles[k % count]];
        result.acting.clear();
        result.forces.assign(forces ? 3 * static_cast<size_t>(n) * members_of_committee : 0, 0.0);
        for (int m = 0; forces && m < members_of_committee; ++m) {
            by_energy.assign(size, 0.0);
            std::fill(by_lambda.begin(), by_lambda.end(), 0.0);
            for (size_t c = 0; c < count; ++c) {
                by_energy[m * count + c] = weight[result.particles[c]];
                if (owner[slot_of_centre[c]] >= 0) by_lambda[owner[slot_of_centre[c]]] += eps[m * count + c];
            }
            Vec3* own = reinterpret_cast<Vec3*>(result.forces.data()) + static_cast<size_t>(n) * m;
            networks.gradient(by_energy, of_positions);
            places.scatter(of_positions, where, box, own);
            zone.add_forces(by_lambda, where, box, own);
        }
    }

   private:
    void read_core(const Arrays& arrays) {
        core_parameters.clear();
        for (const int atom : core)
            for (int a = 0; a < 3; ++a) core_parameters.push_back(parameters[3 * atom + a]);
        core_ranges = arrays.numbers("core_ranges", 5);
        own_pairs = arrays.particles("core_pair_atoms", 2), own_wraps = arrays.integers("core_pair_wraps", 1, 0, 1);
        own_numbers = arrays.numbers("core_pair_numbers", 3 * own_wraps.size());
        if (own_pairs.size() != 2 * own_wraps.size()) arrays.refuse("core_pair_wraps", "another number of pairs");
    }

    void read_compensation(const Arrays& arrays) {
        const int kinds = static_cast<int>(arrays.size("alignment"));
        alignment = arrays.numbers("alignment", kinds), knots = arrays.numbers("knots", arrays.size("knots"));
        if (knots.size() < 2 || !std::is_sorted(knots.begin(), knots.end())) arrays.refuse("knots", "too few");
        values = arrays.numbers("values", kinds * knots.size()), slopes = arrays.numbers("slopes", kinds * knots.size());
        kind = arrays.integers("kinds", 1, 0, kinds - 1);
        if (kind.size() != zone.lambda.size()) arrays.refuse("kinds", "another number of molecules");
        by_lambda.assign(kind.size(), 0.0);
    }

    // Slots with lambda above 0 or none, centres of the networks among them, weights of all particles.
    void find_active(const Vec3* where, const Vec3* box) {
        zone.evaluate(where, box);
        std::fill(weight.begin(), weight.end(), 0.0);
        active.clear(), pair_atoms.clear(), centres.clear(), slot_of_centre.clear();
        for (size_t k = 0; k < slots.size(); ++k) {
            const double lambda = owner[k] < 0 ? 1.0 : zone.lambda[owner[k]];
            if (lambda == 0.0) continue;
            weight[slots[k]] = lambda;
            active.push_back(static_cast<int>(k));
            if (is_owned[slots[k]]) pair_atoms.push_back(slots[k]);
            if (place_of[slots[k]] >= 0)
                centres.push_back(place_of[slots[k]]), slot_of_centre.push_back(static_cast<int>(k));
        }
    }

    void gather(const Vec3* where, const Vec3* box) {
        places.gather(where, box, positions);
        for (int i = 0; box && i < 9; ++i) cell[i] = box[i / 3][i % 3];
    }

    // sum lambda_i eps_i, its forces, and eps of each molecule in `by_lambda`.
    double of_networks(const Vec3* where, const Vec3* box, int threads, Vec3* forces) {
        std::fill(by_lambda.begin(), by_lambda.end(), 0.0);
        gather(where, box);
        if (centres.empty()) return 0.0;
        networks.energies(positions, box ? cell : nullptr, species, centres, threads, true, eps);
        by_energy.resize(eps.size());
        const size_t count = centres.size();
        double energy = 0.0;
        for (size_t k = 0; k < eps.size(); ++k) {
            const int slot = slot_of_centre[k % count];
            by_energy[k] = weight[slots[slot]] / members_of_committee;
            energy += by_energy[k] * eps[k];
            if (owner[slot] >= 0) by_lambda[owner[slot]] += eps[k] / members_of_committee;
        }
        networks.gradient(by_energy, of_positions);
        places.scatter(of_positions, where, box, forces);
        return energy;
    }

    // sum lambda_i eps_i^MM, its gradient, and eps^MM of the atoms.
    double replaced(const Vec3* where, const Vec3* box) {
        std::fill(of_atoms.begin(), of_atoms.end(), 0.0);
        double energy = 0.0;
        KernelLibrary::check(KernelLibrary::instance().pairs_shared(
            n, reinterpret_cast<const double*>(where), box && pairs_periodic ? cell : nullptr, pair_atoms.size(), pair_atoms.data(),
            owned.size(), owned.data(), parameters.data(), special.start.data(), special.other.data(), ranges.data(),
            weight.data(), &energy, gradient.data(), of_atoms.data()));
        return energy + terms.evaluate(where, box, weight.data(), of_atoms.data(), gradient.data());
    }

    // Pairs inside the core in full, with their gradient; what a 1-4 pair has of its own has no cutoff.
    double core_pairs(const Vec3* where, const Vec3* box, int threads) {
        double energy = 0.0;
        core_positions.resize(3 * core.size()), core_gradient.assign(3 * core.size(), 0.0);
        for (size_t k = 0; k < core.size(); ++k)
            for (int a = 0; a < 3; ++a) core_positions[3 * k + a] = where[core[k]][a];
        const size_t pairs = core.size() * core.size() / 2;
        KernelLibrary::check(KernelLibrary::instance().pairs_region(
            core.size(), core_positions.data(), box && pairs_periodic ? cell : nullptr, core_parameters.data(),
            core_special.start.data(), core_special.other.data(), core_ranges.data(),
            static_cast<int>(std::min<size_t>(threads, pairs / kPairsPerThread)), &energy, core_gradient.data()));
        for (size_t k = 0; k < core.size(); ++k)
            for (int a = 0; a < 3; ++a) gradient[3 * core[k] + a] += core_gradient[3 * k + a];
        for (size_t t = 0; t < own_wraps.size(); ++t) {
            const int i = own_pairs[2 * t], j = own_pairs[2 * t + 1];
            const double* p = &own_numbers[3 * t];
            const Vec3 d = nearest_image(where[j] - where[i], own_wraps[t] ? box : nullptr);
            const double r = std::sqrt(d.dot(d)), ratio = p[1] / r, charge = core_ranges[4] * p[0] / r;
            const double sixth = ratio * ratio * ratio * ratio * ratio * ratio;
            energy += 4.0 * p[2] * (sixth * sixth - sixth) + charge;
            const double slope = -(24.0 * p[2] * (2.0 * sixth * sixth - sixth) + charge) / (r * r);
            for (int a = 0; a < 3; ++a) gradient[3 * j + a] += slope * d[a], gradient[3 * i + a] -= slope * d[a];
        }
        return energy;
    }

    // -lambda a - G(lambda), a cubic Hermite polynomial between two knots; adds its slope to `by_lambda`.
    double compensation(size_t m) {
        const double lambda = zone.lambda[m];
        size_t place = std::upper_bound(knots.begin(), knots.end(), lambda) - knots.begin();
        place = std::min(std::max<size_t>(place, 1), knots.size() - 1) - 1;
        const size_t row = kind[m] * knots.size() + place;
        const double h = knots[place + 1] - knots[place], t = (lambda - knots[place]) / h;
        const double v0 = values[row], v1 = values[row + 1], s0 = slopes[row] * h, s1 = slopes[row + 1] * h;
        const double square = 3.0 * (v1 - v0) - 2.0 * s0 - s1, cube = 2.0 * (v0 - v1) + s0 + s1;
        by_lambda[m] -= alignment[kind[m]] + (s0 + t * (2.0 * square + t * 3.0 * cube)) / h;
        return -lambda * alignment[kind[m]] - (v0 + t * (s0 + t * (square + t * cube)));
    }

    ZoneWeights zone;
    MMTerms terms;
    Networks networks;
    int n;
    Special special;
    std::vector<int> core;
    Special core_special;
    int members_of_committee;
    Places places;
    std::vector<int> place_of, slots, owner, active, slot_of_centre, own_pairs, own_wraps, kind;
    std::vector<char> is_owned;
    std::vector<int64_t> species, owned, pair_atoms, centres;
    std::vector<double> parameters, ranges, core_parameters, core_ranges, own_numbers;
    std::vector<double> alignment, knots, values, slopes, by_lambda;
    std::vector<double> weight, of_atoms, gradient, positions, of_positions, eps, by_energy, core_positions,
        core_gradient;
    double cell[9] = {};
    bool pairs_periodic = false;
};

}  // namespace

std::unique_ptr<Blend> make_adaptive_blend(const BlendForce& force, int n_particles) {
    return std::make_unique<AdaptiveBlend>(force, Arrays(force, n_particles));
}

}  // namespace mlmm
