// Energies and forces of each member of a committee at any positions, without a Context: what reports ask for.
#include <algorithm>

#include "blend_force.h"
#include "guarded.h"
#include "networks.h"
#include "places.h"

using namespace OpenMM;
using namespace mlmm;

namespace {

// An ANIForce, whose weights are constant.
class StaticBlend : public Blend {
   public:
    StaticBlend(const ANIForce& force, int n_particles)
        : networks(*force.committee, force.twofold), n_particles(n_particles) {
        const Atoms atoms(force);
        species.assign(atoms.element.begin(), atoms.element.end());
        centres.assign(atoms.centres.begin(), atoms.centres.end());
        for (const SeenParticle& p : force.particles) places.particles.push_back(p.particle);
        places.caps = force.caps;
        for (const int64_t c : centres) {
            weights.push_back(atoms.weight[c]);
            particles.push_back(c < static_cast<int64_t>(force.particles.size()) ? force.particles[c].particle : -1);
        }
        for (const int p : places.particles)
            if (p < 0 || p >= n_particles) throw OpenMMException("Expected particles of the System. Count from 0.");
    }

    double evaluate(const Vec3* where, const Vec3* box, int threads, Vec3* forces) override {
        energies(where, box, threads, true);
        double energy = 0.0;
        for (size_t k = 0; k < eps.size(); ++k) {
            by_energy[k] = weights[k % weights.size()] / networks.members();
            energy += by_energy[k] * eps[k];
        }
        networks.gradient(by_energy, gradient);
        places.scatter(gradient, where, box, forces);
        return energy;
    }

    void members(const Vec3* where, const Vec3* box, int threads, bool forces, MemberEnergies& result) override {
        result.particles = particles;
        energies(where, box, threads, forces);
        const size_t count = centres.size();
        result.energies.resize(eps.size());
        for (size_t k = 0; k < eps.size(); ++k) result.energies[k] = weights[k % count] * eps[k];
        result.forces.assign(forces ? 3 * static_cast<size_t>(n_particles) * networks.members() : 0, 0.0);
        for (int m = 0; forces && m < networks.members(); ++m) {
            std::fill(by_energy.begin(), by_energy.end(), 0.0);
            std::copy(weights.begin(), weights.end(), by_energy.begin() + m * count);
            networks.gradient(by_energy, gradient);
            places.scatter(gradient, where, box,
                           reinterpret_cast<Vec3*>(result.forces.data()) + static_cast<size_t>(n_particles) * m);
        }
    }

   private:
    void energies(const Vec3* where, const Vec3* box, int threads, bool keep) {
        double cell[9];
        for (int i = 0; box && i < 9; ++i) cell[i] = box[i / 3][i % 3];
        places.gather(where, box, positions);
        networks.energies(positions, box ? cell : nullptr, species, centres, threads, keep, eps);
        by_energy.assign(eps.size(), 0.0);
    }

    Networks networks;
    int n_particles;
    Places places;
    std::vector<int> particles;
    std::vector<int64_t> species, centres;
    std::vector<double> weights, positions, eps, by_energy, gradient;
};

// What Python holds.
struct Evaluation {
    std::shared_ptr<const Committee> committee;
    std::unique_ptr<Blend> blend;
    bool periodic;
    int n_particles, threads;
    MemberEnergies found;
};

}  // namespace

// Of an ANIForce or an ANIBlendForce in a System with so many particles, as it is now.
EXPORT int mlmm_members_new(Force* force, int n_particles, void** made) {
    return guarded([&] {
        auto own = std::make_unique<Evaluation>();
        own->n_particles = n_particles;
        if (const auto* ani = dynamic_cast<ANIForce*>(force)) {
            own->committee = ani->committee, own->periodic = ani->periodic, own->threads = ani->threads;
            own->blend = std::make_unique<StaticBlend>(*ani, n_particles);
        } else {
            const auto& blend = dynamic_cast<const BlendForce&>(*force);
            own->committee = blend.committee, own->periodic = blend.periodic, own->threads = blend.threads;
            own->blend = make_blend(blend, n_particles);
        }
        own->threads = std::max(1, own->threads);
        *made = own.release();
    });
}

// Positions (particles of the System, 3) and box vectors in rows, nm; how many atoms there are energies of.
EXPORT int mlmm_members_evaluate(void* held, const double* positions, const double* box, int forces, int64_t* atoms) {
    return guarded([&] {
        Evaluation& own = *static_cast<Evaluation*>(held);
        const Vec3* rows = own.periodic ? reinterpret_cast<const Vec3*>(box) : nullptr;
        if (own.periodic && !rows)
            throw OpenMMException("Expected box vectors for a periodic force, but got none. Pass them.");
        if (rows) check_box(*own.committee, rows);
        own.blend->members(reinterpret_cast<const Vec3*>(positions), rows, own.threads, forces != 0, own.found);
        *atoms = own.found.particles.size();
    });
}

// The particles of those atoms (A,), -1 for others, their energies (members, A), and forces (members, particles, 3).
EXPORT void mlmm_members_take(const void* held, int32_t* particles, double* energies, double* forces) {
    const MemberEnergies& found = static_cast<const Evaluation*>(held)->found;
    std::copy(found.particles.begin(), found.particles.end(), particles);
    std::copy(found.energies.begin(), found.energies.end(), energies);
    if (forces) std::copy(found.forces.begin(), found.forces.end(), forces);
}

EXPORT void mlmm_members_release(void* held) { delete static_cast<Evaluation*>(held); }
