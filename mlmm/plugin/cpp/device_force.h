// A force of ANI networks in the evaluations of OpenMM on a device: when its kernels start, beside what, and when what
// came out is looked at.
#pragma once

#include <memory>
#include <vector>

#include "device_ani.h"

namespace mlmm {

class DeviceForce {
   public:
    virtual ~DeviceForce() = default;

    // At the end of initialize(): from then on OpenMM waits for it.
    void join_evaluations(int group);
    void execute(bool forces, bool energy);

   protected:
    DeviceForce(const std::vector<OpenMM::ComputeContext*>& contexts, const ANIForce& atoms,
                const std::vector<int>& sides);
    virtual void make_kernels() = 0;
    // Nothing may be added to the buffer of energies where the energy is not asked for.
    virtual void launch_all(bool forces, bool energy) = 0;

    DeviceANI networks;

   private:
    struct PostComputation;
    void run(bool forces, bool energy);
    void finish();
    void look();

    std::vector<OpenMM::ComputeContext*> contexts;  // one for each device; all the work is done on the first
    OpenMM::ComputeContext& cc;
    OpenMM::ComputeQueue queue;
    OpenMM::ComputeEvent ready, done;
    // Its kernels run beside others; an evaluation has not been looked at for what is no number.
    bool beside = false, unseen = false;
    int evaluations = 0;
};

}  // namespace mlmm
