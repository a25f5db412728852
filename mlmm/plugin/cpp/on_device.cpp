#include "on_device.h"

#include <algorithm>

#include "openmm/OpenMMException.h"
#include "openmm/cuda/CudaPlatform.h"
#include "openmm/hip/HipPlatform.h"
#include "openmm/opencl/OpenCLPlatform.h"

using namespace OpenMM;

// Each platform's library has its own copy of these four; with them, the vtable of the class is at home here too.
namespace OpenMM {
bool ComputeForceInfo::areParticlesIdentical(int, int) { return true; }
int ComputeForceInfo::getNumParticleGroups() { return 0; }
void ComputeForceInfo::getParticlesInGroup(int, std::vector<int>&) {}
bool ComputeForceInfo::areGroupsIdentical(int, int) { return true; }
}  // namespace OpenMM

namespace mlmm {

namespace {

// OpenCLContext, CudaContext and HipContext are incomplete types here, since their headers want those of the vendors;
// ComputeContext is the single, first base class of each, so the pointer is the same.
template <class Data>
std::vector<ComputeContext*> all(ContextImpl& context) {
    std::vector<ComputeContext*> result;
    for (auto* c : static_cast<Data*>(context.getPlatformData())->contexts)
        result.push_back(reinterpret_cast<ComputeContext*>(c));
    return result;
}

}  // namespace

std::vector<ComputeContext*> contexts_of(const Platform& platform, ContextImpl& context) {
    if (platform.getName() == "OpenCL") return all<OpenCLPlatform::PlatformData>(context);
    if (platform.getName() == "CUDA") return all<CudaPlatform::PlatformData>(context);
    return all<HipPlatform::PlatformData>(context);
}

OnDevice::OnDevice(ComputeContext& cc)
    : cc(cc), opencl(cc.getContextImpl()->getPlatform().getName() == "OpenCL"),
      cuda(cc.getContextImpl()->getPlatform().getName() == "CUDA"), twofold(cc.getUseDoublePrecision()),
      wide(twofold || cc.getUseMixedPrecision()) {}

ArrayInterface& OnDevice::array(const std::string& name, size_t size, int element_size) {
    if (has(name)) throw OpenMMException("mlmm: two arrays of one program are called " + name);
    std::unique_ptr<ArrayInterface>& made = arrays[name];
    made.reset(cc.createArray());
    made->initialize(cc, std::max<size_t>(size, 1), element_size, "ani_" + name);
    return *made;
}

void OnDevice::integers(const std::string& name, std::vector<int> values) {
    if (values.empty()) values.push_back(0);
    array(name, values.size(), sizeof(int)).upload(values);
}

void OnDevice::numbers(const std::string& name, std::vector<double> values, bool mixed) {
    if (values.empty()) values.push_back(0.0);
    array(name, values.size(), mixed ? mixed_size() : real_size()).upload(values, true);
}

void OnDevice::compile(const std::string& source, const std::map<std::string, std::string>& defines) {
    program = cc.compileProgram(source, defines);
}

ComputeKernel OnDevice::kernel(const std::string& name, int values, const std::vector<std::string>& names) {
    ComputeKernel made = program->createKernel(name);
    for (int i = 0; i < values; ++i) made->addArg();
    for (const std::string& array : names) {
        if (array == "posq")
            made->addArg(cc.getPosq());
        else if (array == "correction")  // It exists in mixed precision only, and is not used otherwise.
            made->addArg(cc.getUseMixedPrecision() ? cc.getPosqCorrection() : cc.getPosq());
        else if (array == "forces")
            made->addArg(cc.getLongForceBuffer());
        else if (array == "energyBuffer")
            made->addArg(cc.getEnergyBuffer());
        else
            made->addArg(at(array));
    }
    return made;
}

void OnDevice::set_box(ComputeKernel& kernel) {
    Vec3 box[3];
    cc.getPeriodicBoxVectors(box[0], box[1], box[2]);
    for (int i = 0; i < 3; ++i) {
        if (wide)
            kernel->setArg(i, mm_double4(box[i][0], box[i][1], box[i][2], 0));
        else
            kernel->setArg(i, mm_float4(static_cast<float>(box[i][0]), static_cast<float>(box[i][1]),
                                        static_cast<float>(box[i][2]), 0));
    }
}

}  // namespace mlmm
