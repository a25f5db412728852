// E(V) - E(V without S, capped) on a device: rows of both structures in one evaluation, by the atoms whose energy
// differs; as in supermolecular_blend.cpp.
#include "device_blend.h"
#include "device_nearby.h"

using namespace OpenMM;

namespace mlmm {

namespace {

// Structures that an atom is part of.
constexpr int kWhole = 1, kRest = 2;

class SupermolecularOnDevice : public DeviceBlend {
   public:
    SupermolecularOnDevice(const Contexts& contexts, const ANIForce& whole, const std::vector<int>& sides)
        : DeviceBlend(contexts, whole, sides) {
        std::vector<int> sources;
        const std::vector<int>& order = networks.packing.order;
        for (size_t k = 0; k < order.size(); ++k)
            if (sides[order[k]] != (kWhole | kRest)) sources.push_back(static_cast<int>(k));
        networks.integers("sources", sources);
        networks.add(kDeviceNearby, {{"NUM_SOURCES", std::to_string(sources.size())}});
    }

   private:
    void make_kernels() override {
        mark = networks.kernel("chooseCandidates", 3,
                               {"posq", "correction", "particles", "capParticles", "capDistances", "candidates",
                                "candidateSides", "atomSides", "sources", "candidateWeights"});
    }

    void launch_before() override {
        networks.set_box(mark);
        mark->execute(networks.n_candidates());
    }

    ComputeKernel mark;
};

}  // namespace

std::unique_ptr<DeviceBlend> supermolecular_on_device(const Contexts& contexts, const Arrays& arrays,
                                                      const BlendForce& force) {
    const int elements = static_cast<int>(force.committee->elements.size());
    const std::vector<int>&seen = arrays.particles("seen"), &element = arrays.integers("elements", 1, 0, elements - 1),
                     &inside = arrays.integers("inside", 1, 0, 1), &caps = arrays.particles("caps", 2);
    const std::vector<double>& distances = arrays.numbers("cap_distances", caps.size() / 2);
    const int hydrogen = arrays.integers("hydrogen", 1, 0, elements - 1)[0];
    ANIForce whole(force.committee);
    whole.periodic = force.periodic;
    std::vector<int> sides, kinds(arrays.n_particles(), 0);
    for (size_t k = 0; k < seen.size(); ++k) {
        whole.particles.push_back({seen[k], element[k], 1.0});
        sides.push_back(inside[k] ? kWhole : kWhole | kRest);
        // Whatever stays and is on no cut bond is like any other of its element.
        kinds[seen[k]] = inside[k] ? 1 : -1 - element[k];
    }
    for (size_t k = 0; k < distances.size(); ++k) {
        whole.caps.push_back({caps[2 * k], caps[2 * k + 1], distances[k], hydrogen});
        sides.push_back(kRest);
        kinds[caps[2 * k]] = kinds[caps[2 * k + 1]] = 1;
    }
    auto made = std::make_unique<SupermolecularOnDevice>(contexts, whole, sides);
    made->kinds.kinds = kinds;
    return made;
}

}  // namespace mlmm
