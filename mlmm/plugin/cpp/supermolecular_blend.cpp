// E(V) - E(V without S, capped), by the atoms whose energy differs; see mlmm/blending/supermolecular.py, the same in torch.
#include <algorithm>
#include <cmath>

#include "arrays.h"
#include "networks.h"
#include "places.h"

using OpenMM::Vec3;

namespace mlmm {

namespace {

class SupermolecularBlend : public Blend {
   public:
    SupermolecularBlend(const BlendForce& force, const Arrays& arrays)
        : networks(*force.committee, force.twofold), n_particles(arrays.n_particles()),
          reach(force.committee->radial_cutoff / force.committee->length) {
        whole.particles = arrays.different_particles("seen");
        const int elements = static_cast<int>(force.committee->elements.size());
        const std::vector<int>& element = arrays.integers("elements", 1, 0, elements - 1);
        const std::vector<int>& inside = arrays.integers("inside", 1, 0, 1);
        const std::vector<int>& hydrogen = arrays.integers("hydrogen", 1, 0, elements - 1);
        const std::vector<int>& caps = arrays.particles("caps", 2);
        const std::vector<double>& distances = arrays.numbers("cap_distances", caps.size() / 2);
        if (element.size() != whole.size() || inside.size() != whole.size())
            arrays.refuse("elements", "another number of atoms");
        if (hydrogen.size() != 1) arrays.refuse("hydrogen", "another number of elements");
        for (const int e : element)
            if (force.committee->networks[e].empty()) arrays.refuse("elements", "an element without networks");
        if (!distances.empty() && force.committee->networks[hydrogen[0]].empty())
            arrays.refuse("hydrogen", "an element without networks");
        for (size_t k = 0; k < whole.size(); ++k) {
            species.push_back(element[k]);
            if (inside[k]) {
                removed.push_back(k);
                continue;
            }
            kept.push_back(k);
            rest.particles.push_back(whole.particles[k]), rest_species.push_back(element[k]);
        }
        if (removed.empty()) arrays.refuse("inside", "no atom");
        for (size_t k = 0; k < distances.size(); ++k) {
            if (caps[2 * k] == caps[2 * k + 1] || !(distances[k] > 0)) arrays.refuse("caps", "a cap on no bond");
            all.caps.push_back({caps[2 * k], caps[2 * k + 1], distances[k], hydrogen[0]});
            rest_species.push_back(hydrogen[0]);
        }
        all.particles = whole.particles, rest.caps = all.caps;
        // Sources of a difference: atoms of S and caps, by their place among all atoms and then caps.
        sources = removed;
        for (size_t k = 0; k < all.caps.size(); ++k) sources.push_back(whole.size() + k);
    }

    double evaluate(const Vec3* where, const Vec3* box, int threads, Vec3* forces) override {
        find_centres(where, box);
        double energy = 0.0;
        for (const bool first : {true, false}) {
            if (!pass(first, where, box, threads, true)) continue;
            const double weight = (first ? 1.0 : -1.0) / networks.members();
            by_energy.assign(eps.size(), weight);
            for (const double e : eps) energy += weight * e;
            networks.gradient(by_energy, gradient);
            (first ? whole : rest).scatter(gradient, where, box, forces);
        }
        return energy;
    }

    void members(const Vec3* where, const Vec3* box, int threads, bool forces, MemberEnergies& result) override {
        find_centres(where, box);
        // A difference of whole energies is no atom's.
        result.particles = {-1};
        result.energies.assign(networks.members(), 0.0);
        result.acting.clear();
        result.forces.assign(forces ? 3 * static_cast<size_t>(n_particles) * networks.members() : 0, 0.0);
        for (const bool first : {true, false}) {
            if (!pass(first, where, box, threads, forces)) continue;
            const size_t count = eps.size() / networks.members();
            for (int m = 0; m < networks.members(); ++m) {
                by_energy.assign(eps.size(), 0.0);
                for (size_t k = m * count; k < (m + 1) * count; ++k) {
                    by_energy[k] = first ? 1.0 : -1.0;
                    result.energies[m] += by_energy[k] * eps[k];
                }
                if (!forces) continue;
                networks.gradient(by_energy, gradient);
                (first ? whole : rest)
                    .scatter(gradient, where, box,
                             reinterpret_cast<Vec3*>(result.forces.data()) + static_cast<size_t>(n_particles) * m);
            }
        }
    }

   private:
    // Centres of both passes: S and all kept atoms, or kept atoms and caps, that are within reach of S or a cap.
    void find_centres(const Vec3* where, const Vec3* box) {
        for (int i = 0; box && i < 9; ++i) cell[i] = box[i / 3][i % 3];
        all.gather(where, box, positions);
        near.assign(all.size(), 0);
        KernelLibrary::check(KernelLibrary::instance().atoms_near(
            all.size(), positions.data(), box ? cell : nullptr, sources.size(), sources.data(), kept.size(),
            kept.data(), reach, near.data()));
        centres = removed, rest_centres.clear();
        for (size_t k = 0; k < kept.size(); ++k)
            if (near[kept[k]]) centres.push_back(kept[k]), rest_centres.push_back(k);
        for (size_t k = 0; k < all.caps.size(); ++k) rest_centres.push_back(kept.size() + k);
    }

    // Energies of one pass in `eps`; false where it has no centre.
    bool pass(bool first, const Vec3* where, const Vec3* box, int threads, bool keep) {
        if (!first && rest_centres.empty()) return false;
        (first ? whole : rest).gather(where, box, positions);
        networks.energies(positions, box ? cell : nullptr, first ? species : rest_species,
                          first ? centres : rest_centres, threads, keep, eps);
        return true;
    }

    Networks networks;
    int n_particles;
    double reach, cell[9] = {};
    Places whole, rest, all;  // V; V without S and caps; V and caps
    std::vector<int64_t> species, rest_species, removed, kept, sources, centres, rest_centres;
    std::vector<unsigned char> near;
    std::vector<double> positions, eps, by_energy, gradient;
};

}  // namespace

std::unique_ptr<Blend> make_supermolecular_blend(const BlendForce& force, int n_particles) {
    return std::make_unique<SupermolecularBlend>(force, Arrays(force, n_particles));
}

}  // namespace mlmm
