// Energies and forces of each member of a committee at any positions, without a Context: what reports ask for.
#include <algorithm>

#include "ani_force.h"
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
        check_atoms(force, n_particles);
        const Atoms atoms(force);
        species.assign(atoms.element.begin(), atoms.element.end());
        centres.assign(atoms.centres.begin(), atoms.centres.end());
        for (const SeenParticle& p : force.particles) places.particles.push_back(p.particle);
        places.caps = force.caps;
        for (const int64_t c : centres) {
            weights.push_back(atoms.weight[c]);
            particles.push_back(c < static_cast<int64_t>(force.particles.size()) ? force.particles[c].particle : -1);
        }
        acting = places.particles;
        for (const Cap& cap : places.caps) acting.insert(acting.end(), {cap.outer, cap.inner});
        std::sort(acting.begin(), acting.end());
        acting.erase(std::unique(acting.begin(), acting.end()), acting.end());
        on_all.resize(n_particles);
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
        result.forces.clear(), result.acting = acting;
        for (int m = 0; forces && m < networks.members(); ++m) {
            std::fill(by_energy.begin(), by_energy.end(), 0.0);
            std::copy(weights.begin(), weights.end(), by_energy.begin() + m * count);
            networks.gradient(by_energy, gradient);
            places.scatter(gradient, where, box, on_all.data());
            for (const int p : acting) {
                result.forces.insert(result.forces.end(), {on_all[p][0], on_all[p][1], on_all[p][2]});
                on_all[p] = Vec3();
            }
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
    std::vector<int> particles, acting;
    std::vector<Vec3> on_all;  // zero between two evaluations: few particles of a large System have a force
    std::vector<int64_t> species, centres;
    std::vector<double> weights, positions, eps, by_energy, gradient;
};

// Leaves the forces (members, all particles, 3) on those that have any.
void keep_acting(size_t n_particles, MemberEnergies& found) {
    const size_t row = 3 * n_particles, members = found.forces.size() / row;
    std::vector<double> kept;
    for (size_t p = 0; p < n_particles; ++p)
        for (size_t k = 3 * p; k < found.forces.size(); k += row) {
            const double* f = &found.forces[k];
            if (f[0] == 0.0 && f[1] == 0.0 && f[2] == 0.0) continue;
            found.acting.push_back(static_cast<int>(p));
            break;
        }
    kept.reserve(3 * members * found.acting.size());
    for (size_t m = 0; m < members; ++m)
        for (const int p : found.acting)
            kept.insert(kept.end(), &found.forces[m * row + 3 * p], &found.forces[m * row + 3 * p] + 3);
    found.forces.swap(kept);
}

// What Python holds.
struct Evaluation {
    std::shared_ptr<const Committee> committee;
    std::unique_ptr<Blend> blend;
    bool periodic;
    int n_particles, threads;
    MemberEnergies found;
};

}  // namespace

// Of an ANIForce or an ANIBlendForce in a System with so many particles, as it is now, by at most so many threads.
EXPORT int mlmm_members_new(Force* force, int n_particles, int threads, void** made) {
    return guarded([&] {
        auto own = std::make_unique<Evaluation>();
        own->n_particles = n_particles, own->threads = std::max(1, threads);
        if (const auto* ani = dynamic_cast<ANIForce*>(force)) {
            own->committee = ani->committee, own->periodic = ani->periodic;
            own->blend = std::make_unique<StaticBlend>(*ani, n_particles);
        } else {
            const auto& blend = dynamic_cast<const BlendForce&>(*force);
            own->committee = blend.committee, own->periodic = blend.periodic;
            own->blend = make_blend(blend, n_particles);
        }
        *made = own.release();
    });
}

// Positions (particles of the System, 3) and box vectors in rows, nm; how many atoms there are energies of, and of how
// many particles forces.
EXPORT int mlmm_members_evaluate(void* held, const double* positions, const double* box, int forces, int64_t* counts) {
    return guarded([&] {
        Evaluation& own = *static_cast<Evaluation*>(held);
        const Vec3* rows = own.periodic ? reinterpret_cast<const Vec3*>(box) : nullptr;
        if (own.periodic && !rows)
            throw OpenMMException("Expected box vectors for a periodic force, but got none. Pass them.");
        if (rows) check_box(*own.committee, rows);
        own.blend->members(reinterpret_cast<const Vec3*>(positions), rows, own.threads, forces != 0, own.found);
        if (own.found.acting.empty() && !own.found.forces.empty()) keep_acting(own.n_particles, own.found);
        if (!are_finite(own.found.energies) || !are_finite(own.found.forces)) throw not_finite();
        counts[0] = own.found.particles.size(), counts[1] = own.found.acting.size();
    });
}

// The particles of those atoms (A,), -1 for others, their energies (members, A), the particles with forces (F,), and
// these (members, F, 3).
EXPORT void mlmm_members_take(const void* held, int32_t* particles, double* energies, int32_t* acting, double* forces) {
    const MemberEnergies& found = static_cast<const Evaluation*>(held)->found;
    std::copy(found.particles.begin(), found.particles.end(), particles);
    std::copy(found.energies.begin(), found.energies.end(), energies);
    std::copy(found.acting.begin(), found.acting.end(), acting);
    if (forces) std::copy(found.forces.begin(), found.forces.end(), forces);
}

EXPORT void mlmm_members_release(void* held) { delete static_cast<Evaluation*>(held); }
