// Arrays and kernels of one program on a device, CUDA, HIP or OpenCL.
//
// Everything goes through virtual methods of ComputeContext, ArrayInterface, ComputeKernelImpl and ComputeEventImpl, so
// that no symbol of libOpenMMOpenCL, CUDA or HIP is needed, nor their headers. Of ComputeContext only virtual or inline
// methods may be called here.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "openmm/common/ComputeContext.h"
#include "openmm/common/ComputeForceInfo.h"
#include "openmm/common/ContextSelector.h"
#include "openmm/internal/ContextImpl.h"

namespace mlmm {

// The contexts of a Context on a GPU platform, one for each device.
std::vector<OpenMM::ComputeContext*> contexts_of(const OpenMM::Platform& platform, OpenMM::ContextImpl& context);

// Which atoms and groups of them are alike: GPU platforms swap whole identical molecules to keep neighbours together.
// A place in their arrays keeps its kind of atom, so that is enough for those whose weight follows from their position.
// Atoms of a positive kind are identical to no other, and neither are groups.
// (ComputeForceInfo has no virtual destructor: OpenMM owns what is given to it, and it is small.)
struct AtomKinds : public OpenMM::ComputeForceInfo {
    bool areParticlesIdentical(int a, int b) override { return a == b || (kinds[a] == kinds[b] && kinds[a] <= 0); }
    int getNumParticleGroups() override { return static_cast<int>(groups.size()); }
    void getParticlesInGroup(int index, std::vector<int>& particles) override { particles = groups[index]; }
    bool areGroupsIdentical(int a, int b) override {
        return a == b || (group_kinds[a] == group_kinds[b] && group_kinds[a] <= 0);
    }
    std::vector<int> kinds;                // of each particle
    std::vector<std::vector<int>> groups;  // particles that stay together
    std::vector<int> group_kinds;
};

class OnDevice {
   public:
    explicit OnDevice(OpenMM::ComputeContext& cc);

    OpenMM::ArrayInterface& array(const std::string& name, size_t size, int element_size);
    void integers(const std::string& name, std::vector<int> values);
    void numbers(const std::string& name, std::vector<double> values, bool mixed = false);
    OpenMM::ArrayInterface& at(const std::string& name) { return *arrays.at(name); }
    bool has(const std::string& name) const { return arrays.count(name) != 0; }

    void compile(const std::string& source, const std::map<std::string, std::string>& defines);
    // `values` arguments to be set later, then arrays: those of OpenMM are posq, correction, forces, energyBuffer.
    OpenMM::ComputeKernel kernel(const std::string& name, int values, const std::vector<std::string>& names);
    // The first three arguments; barostats change the box.
    void set_box(OpenMM::ComputeKernel& kernel);

    int real_size() const { return twofold ? sizeof(double) : sizeof(float); }
    int mixed_size() const { return wide ? sizeof(double) : sizeof(float); }

    OpenMM::ComputeContext& cc;
    const bool opencl, cuda, twofold, wide;

   private:
    std::map<std::string, std::unique_ptr<OpenMM::ArrayInterface>> arrays;
    OpenMM::ComputeProgram program;
};

}  // namespace mlmm
