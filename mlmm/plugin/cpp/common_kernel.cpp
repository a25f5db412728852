// An ANIForce on OpenCL, CUDA and HIP: constant weights, so that its rows are given once.
#include "centres.h"
#include "device_force.h"

using namespace OpenMM;

namespace mlmm {

namespace {

class StaticOnDevice : public DeviceForce {
   public:
    StaticOnDevice(const std::vector<ComputeContext*>& contexts, const ANIForce& force)
        : DeviceForce(contexts, force, {}) {}

    void read_weights(const ANIForce& force) {
        networks.at("rowWeights").upload(networks.packing.row_weights(force), true);
    }

    void atom_energies(std::vector<double>& result) {
        std::vector<double> rows;
        networks.at("energies").download(rows, true);
        for (int m = 0; m < networks.members; ++m)
            for (const int row : networks.packing.row_of_centre) result.push_back(rows[m * networks.rows + row]);
    }
};

class CommonANIKernel : public ANIKernel {
   public:
    CommonANIKernel(const Platform& platform, const std::vector<ComputeContext*>& contexts)
        : ANIKernel(platform), contexts(contexts) {}

    void initialize(const System& system, const ANIForce& force) override {
        ContextSelector selector(*contexts[0]);
        AtomKinds kinds;
        // 0: not seen; negative: an element without weight; positive: with one.
        kinds.kinds.assign(system.getNumParticles(), 0);
        for (const SeenParticle& p : force.particles) kinds.kinds[p.particle] = p.weight == 0 ? -1 - p.element : 1;
        for (const Cap& cap : force.caps) kinds.kinds[cap.outer] = kinds.kinds[cap.inner] = 1;
        for (ComputeContext* context : contexts) context->addForce(new AtomKinds(kinds));
        if (Atoms(force).centres.empty()) return;
        work = std::make_unique<StaticOnDevice>(contexts, force);
        work->read_weights(force);
        work->join_evaluations(force.getForceGroup());
    }

    void read_weights(const ANIForce& force) override {
        ContextSelector selector(*contexts[0]);
        if (work) work->read_weights(force);
    }

    double execute(ContextImpl&, bool forces, bool energy) override {
        if (work) work->execute(forces, energy);
        return 0.0;  // It is in the energy buffer.
    }

    void atom_energies(std::vector<double>& result) override {
        ContextSelector selector(*contexts[0]);
        result.clear();
        if (work) work->atom_energies(result);
    }

   private:
    std::vector<ComputeContext*> contexts;
    std::unique_ptr<StaticOnDevice> work;
};

}  // namespace

ANIKernel* make_common_kernel(const Platform& platform, ContextImpl& context) {
    return new CommonANIKernel(platform, contexts_of(platform, context));
}

}  // namespace mlmm
