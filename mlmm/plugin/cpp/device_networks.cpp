// The networks of an ANIForce on a device: by tensor cores where they were seen to be right.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "device_ani.h"

using namespace OpenMM;

namespace mlmm {

namespace {

// What may be between tensor cores and the device's other arithmetic, of the largest gradient: ten times their error. To
// take one product only is wrong by 1e-3, a wrong order of numbers by all of it.
constexpr double kTensorTolerance = 5e-5;

}  // namespace

ComputeKernel DeviceANI::evaluation() {
    std::vector<std::string> names = {"tiles", "widths", "matrices", "last", "rowWeights", "functions", "slopes",
                                      "energies", "status", "energyBuffer"};
    if (moving) names.push_back("rowCounts");
    return kernel("evaluateNetworks", 2, names);
}

// Tensor cores are taken where they were seen to be right, for these networks on this device.
void DeviceANI::compare_evaluations() {
    std::vector<double> found[2];
    for (const int own : {0, 1}) {
        // What no row has now may be anything.
        cc.clearBuffer(at("slopes"));
        run_networks(own ? evaluate : plainly, true, false);
        at("slopes").download(found[own], true);
    }
    double largest = 0, difference = 0;
    for (size_t i = 0; i < found[0].size(); ++i) {
        if (!std::isfinite(found[0][i])) return;
        largest = std::max(largest, std::fabs(found[0][i]));
        if (!std::isfinite(found[1][i])) found[1][i] = INFINITY;
        difference = std::max(difference, std::fabs(found[1][i] - found[0][i]));
    }
    // Without rows, or with broken positions, there is nothing to compare yet.
    if (largest == 0) return;
    if (!(difference < kTensorTolerance * largest)) {
        std::cerr << "mlmm: tensor cores give other gradients here, by " << difference / largest
                  << " of the largest; they are not used\n";
        evaluate = plainly, tensor_cores = false;
    }
    plainly.reset();
}

void DeviceANI::run_networks(ComputeKernel& kernel, bool forces, bool energy) {
    kernel->setArg(0, static_cast<int>(forces)), kernel->setArg(1, static_cast<int>(energy));
    kernel->execute(static_cast<int>(at("tiles").getSize()) / 3 * members * plan.threads, plan.threads);
}

}  // namespace mlmm
