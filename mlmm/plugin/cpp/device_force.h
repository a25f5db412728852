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
    // Of a blend: what comes before the networks, and what adds forces and energies after them.
    virtual void make_kernels() {}
    virtual void launch_before() {}
    virtual void launch_after(bool) {}

    DeviceANI networks;

   private:
    struct PostComputation;
    void run(bool forces, bool energy);
    void add_forces(bool forces, bool energy);
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
