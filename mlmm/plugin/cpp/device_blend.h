// A BlendForce on a device.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "arrays.h"
#include "device_force.h"

namespace mlmm {

class DeviceBlend : public DeviceForce {
   public:
    AtomKinds kinds;

   protected:
    using DeviceForce::DeviceForce;

    // A constant of the device code, in mixed precision.
    std::string mixed(double value) const {
        char buffer[64];
        std::snprintf(buffer, sizeof buffer, networks.wide ? "(%.17e)" : "(%.9ef)", value);
        return buffer;
    }
};

using Contexts = std::vector<OpenMM::ComputeContext*>;

// Null where no atom could ever have a network.
std::unique_ptr<DeviceBlend> adaptive_on_device(const Contexts& contexts, const Arrays& arrays,
                                                const BlendForce& force);
std::unique_ptr<DeviceBlend> supermolecular_on_device(const Contexts& contexts, const Arrays& arrays,
                                                      const BlendForce& force);

}  // namespace mlmm
