// A BlendForce in a Context: on GPU platforms it stays on the device; on the others OpenMM hands over the positions and
// takes the forces back.
#include "blend_force.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "ani_force.h"
#include "networks.h"
#include "openmm/Kernel.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/internal/CustomCPPForceImpl.h"

using namespace OpenMM;

namespace mlmm {

namespace {

class BlendForceImpl : public CustomCPPForceImpl {
   public:
    explicit BlendForceImpl(const BlendForce& owner) : CustomCPPForceImpl(owner), owner(owner) {}

    void initialize(ContextImpl& context) override {
        try {
            if (on_device(context)) return;
        } catch (const std::bad_alloc&) {
            throw no_memory();
        }
        threads = owner.threads > 0 ? owner.threads : threads_of(context);
        CustomCPPForceImpl::initialize(context);
    }
    const Force& getOwner() const override { return owner; }

    double calcForcesAndEnergy(ContextImpl& context, bool forces, bool energy, int groups) override {
        if (blend) return CustomCPPForceImpl::calcForcesAndEnergy(context, forces, energy, groups);
        if ((groups & (1 << owner.getForceGroup())) == 0) return 0.0;
        Vec3 box[3];
        read_box(context, box);
        kernel.getAs<BlendKernel>().execute(forces, energy);
        return 0.0;  // It is in the energy buffer of the device.
    }

    double computeForce(ContextImpl& context, const std::vector<Vec3>& positions, std::vector<Vec3>& forces) override {
        Vec3 box[3];
        read_box(context, box);
        std::fill(forces.begin(), forces.end(), Vec3());
        const double energy =
            blend->evaluate(positions.data(), owner.periodic ? box : nullptr, threads, forces.data());
        const auto is_broken = [](const Vec3& f) { return !std::isfinite(f[0] + f[1] + f[2]); };
        if (!std::isfinite(energy) || std::any_of(forces.begin(), forces.end(), is_broken)) throw not_finite();
        return energy;
    }

   private:
    // Makes a kernel for a GPU platform, or what is evaluated on the processor.
    bool on_device(ContextImpl& context) {
        const System& system = context.getSystem();
        blend = make_blend(owner, system.getNumParticles());
        if (!context.getPlatform().supportsKernels({BlendKernel::Name()})) return false;
        kernel = context.getPlatform().createKernel(BlendKernel::Name(), context);
        if (!kernel.getAs<BlendKernel>().initialize(system, owner)) return false;
        blend.reset();
        return true;
    }

    void read_box(ContextImpl& context, Vec3* box) const {
        if (!owner.periodic) return;
        context.getPeriodicBoxVectors(box[0], box[1], box[2]);
        check_box(*owner.committee, box);
    }

    const BlendForce& owner;
    std::unique_ptr<Blend> blend;  // on the processor
    Kernel kernel;                 // on a device
    int threads = 1;
};

}  // namespace

ForceImpl* BlendForce::createImpl() const { return new BlendForceImpl(*this); }

std::unique_ptr<Blend> make_blend(const BlendForce& force, int n_particles) {
    if (force.kind == "region_pairs" || force.kind == "zone_pairs") return make_pair_blend(force, n_particles);
    if (force.committee->elements.empty())
        throw OpenMMException("Expected a committee of ANI networks, but the ANIBlendForce has none. Give it one.");
    if (force.kind == "adaptive") return make_adaptive_blend(force, n_particles);
    if (force.kind == "supermolecular") return make_supermolecular_blend(force, n_particles);
    throw OpenMMException("Expected an adaptive or supermolecular ANIBlendForce, but got '" + force.kind +
                          "'. Install a newer mlmm.");
}

void check_box(const Committee& committee, const Vec3* box) {
    if (committee.elements.empty()) return;  // pairs alone
    const double least = 2 * committee.radial_cutoff / committee.length;
    // Not a comparison that a box that is no number would pass.
    if (!(box[0][0] >= least && box[1][1] >= least && box[2][2] >= least))
        throw OpenMMException("Expected a periodic box of at least " + std::to_string(least) +
                              " nm, twice the cutoff of the ANI networks, but got one that is smaller. Use a "
                              "larger box, or look why it shrank.");
}

}  // namespace mlmm
