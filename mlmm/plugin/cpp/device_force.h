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
    // What adds to no buffer of OpenMM's, or to that of energies where the energy is asked for; and what adds forces.
    virtual void launch_networks(bool forces, bool energy) = 0;
    virtual void launch_forces(bool forces, bool energy) = 0;

    DeviceANI networks;

   private:
    struct PostComputation;
    void run(bool forces, bool energy);
    void finish(bool asked);
    void wait();
    void look(bool energy);

    std::vector<OpenMM::ComputeContext*> contexts;  // one for each device; all the work is done on the first
    OpenMM::ComputeContext& cc;
    OpenMM::ComputeQueue queue;
    OpenMM::ComputeEvent ready, done;
    // Its networks run beside other kernels; forces are wanted of them.
    bool beside = false, wanted = false;
    int evaluations = 0;
};

}  // namespace mlmm
