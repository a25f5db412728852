// Reference and CPU platforms: both keep positions and forces in ReferencePlatform::PlatformData, in double.
#include <algorithm>
#include <cmath>
#include <optional>

#include "networks.h"
#include "openmm/reference/ReferencePlatform.h"
#include "places.h"

using namespace OpenMM;

namespace mlmm {

namespace {

class ReferenceANIKernel : public ANIKernel {
   public:
    using ANIKernel::ANIKernel;

    void initialize(const System&, const ANIForce& force) override {
        const Atoms atoms(force);
        species.assign(atoms.element.begin(), atoms.element.end());
        centres.assign(atoms.centres.begin(), atoms.centres.end());
        places.particles.clear();
        for (const SeenParticle& p : force.particles) places.particles.push_back(p.particle);
        places.caps = force.caps, periodic = force.periodic;
        most_threads = std::max(0, force.threads);
        energies.resize(force.committee->members * centres.size());
        networks.emplace(*force.committee, force.twofold);
        read_weights(force);
    }

    void read_weights(const ANIForce& force) override {
        const Atoms atoms(force);
        by_energy.clear();
        for (int m = 0; m < networks->members(); ++m)
            for (const int64_t c : centres) by_energy.push_back(atoms.weight[c] / networks->members());
    }

    double execute(ContextImpl& context, bool forces, bool) override {
        if (centres.empty()) return 0.0;
        auto& data = *static_cast<ReferencePlatform::PlatformData*>(context.getPlatformData());
        const Vec3* box = periodic ? data.periodicBoxVectors : nullptr;
        const Vec3* all = data.positions->data();
        places.gather(all, box, positions);
        double cell[9];
        for (int i = 0; box && i < 9; ++i) cell[i] = box[i / 3][i % 3];
        if (most_threads == 0) most_threads = threads_of(context);
        networks->energies(positions, box ? cell : nullptr, species, centres, most_threads, forces, energies);
        if (forces) {
            networks->gradient(by_energy, gradient);
            if (!are_finite(gradient)) throw not_finite();
            places.scatter(gradient, all, box, data.forces->data());
        }
        double total = 0.0;
        for (size_t k = 0; k < energies.size(); ++k) total += by_energy[k] * energies[k];
        if (!std::isfinite(total)) throw not_finite();
        return total;
    }

    void atom_energies(std::vector<double>& result) override { result = energies; }

   private:
    Places places;
    std::optional<Networks> networks;
    std::vector<int64_t> species, centres;
    std::vector<double> by_energy, positions, gradient, energies;
    int most_threads = 0;
    bool periodic = false;
};

}  // namespace

ANIKernel* make_reference_kernel(const Platform& platform) { return new ReferenceANIKernel(platform); }

}  // namespace mlmm
