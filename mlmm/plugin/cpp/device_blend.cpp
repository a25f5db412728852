// A BlendForce on OpenCL, CUDA and HIP.
#include "device_blend.h"

using namespace OpenMM;

namespace mlmm {

namespace {

class CommonBlendKernel : public BlendKernel {
   public:
    CommonBlendKernel(const Platform& platform, const Contexts& contexts)
        : BlendKernel(platform), contexts(contexts) {}

    bool initialize(const System& system, const BlendForce& force) override {
        // Pairs without networks are subtracted on the processor; a hybrid has none on a GPU, but exceptions.
        if (force.committee->elements.empty()) return false;
        ContextSelector selector(*contexts[0]);
        const Arrays arrays(force, system.getNumParticles());
        blend = (force.kind == "adaptive" ? adaptive_on_device : supermolecular_on_device)(contexts, arrays, force);
        if (!blend) return false;
        for (ComputeContext* context : contexts) context->addForce(new AtomKinds(blend->kinds));
        blend->join_evaluations(force.getForceGroup());
        return true;
    }

    void execute(bool forces, bool energy) override {
        blend->execute(forces, energy);
    }

   private:
    Contexts contexts;
    std::unique_ptr<DeviceBlend> blend;
};

}  // namespace

KernelImpl* make_blend_kernel(const Platform& platform, ContextImpl& context) {
    return new CommonBlendKernel(platform, contexts_of(platform, context));
}

}  // namespace mlmm
