// Minus force-field pairs that a potential takes over, and that stay in OpenMM's own force; see
// mlmm/kernels/direct_pairs.py, which has the same kernels for an OpenMM without this plugin.
#include <algorithm>
#include <optional>

#include "arrays.h"
#include "networks.h"
#include "places.h"

using OpenMM::Vec3;

namespace mlmm {

namespace {

class PairBlend : public Blend {
   public:
    PairBlend(const BlendForce& force, const Arrays& arrays) : of_region(force.kind == "region_pairs") {
        places.particles = arrays.different_particles("atoms");
        const int n = static_cast<int>(places.size());
        special.emplace(arrays, "special", n);
        parameters = arrays.numbers("parameters", 3 * static_cast<size_t>(n));
        ranges = arrays.numbers("ranges", of_region ? 5 : 6);
        if (of_region) return;
        weights = arrays.numbers("weights", n), active = wide(arrays.integers("active", 1, 0, n - 1));
        for (int i = 0; i < n; ++i) seen.push_back(i);
    }

    double evaluate(const Vec3* where, const Vec3* box, int threads, Vec3* forces) override {
        places.gather(where, box, positions);
        double cell[9], energy = 0.0;
        for (int i = 0; box && i < 9; ++i) cell[i] = box[i / 3][i % 3];
        gradient.assign(positions.size(), 0.0);
        const int64_t n = places.size();
        const KernelLibrary& library = KernelLibrary::instance();
        if (of_region) {
            const size_t pairs = n * n / 2;
            KernelLibrary::check(library.pairs_region(
                n, positions.data(), box ? cell : nullptr, parameters.data(), special->start.data(),
                special->other.data(), ranges.data(),
                static_cast<int>(std::min<size_t>(threads, pairs / kPairsPerThread)), &energy, gradient.data()));
        } else {
            KernelLibrary::check(library.pairs_shared(
                n, positions.data(), box ? cell : nullptr, active.size(), active.data(), n, seen.data(),
                parameters.data(), special->start.data(), special->other.data(), ranges.data(), weights.data(),
                &energy, gradient.data(), nullptr));
        }
        for (double& g : gradient) g = -g;
        places.scatter(gradient, where, box, forces);
        return -energy;
    }

    void members(const Vec3*, const Vec3*, int, bool, MemberEnergies&) override {
        throw OpenMM::OpenMMException("Expected a force with networks, but got one of force-field pairs. Give that of "
                                      "the potential.");
    }

   private:
    bool of_region;
    Places places;
    std::optional<Special> special;
    std::vector<int64_t> active, seen;
    std::vector<double> parameters, ranges, weights, positions, gradient;
};

}  // namespace

std::unique_ptr<Blend> make_pair_blend(const BlendForce& force, int n_particles) {
    return std::make_unique<PairBlend>(force, Arrays(force, n_particles));
}

}  // namespace mlmm
