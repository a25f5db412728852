// Atoms as the networks see them: particles of the System and then caps, with the rule that places a cap.
#pragma once

#include <cmath>
#include <vector>

#include "ani_force.h"

namespace mlmm {

// Element and weight of every atom of a force, and which of them have a weight.
struct Atoms {
    std::vector<int> element;
    std::vector<double> weight;
    std::vector<int> centres;

    explicit Atoms(const ANIForce& force) {
        for (const SeenParticle& p : force.particles) element.push_back(p.element), weight.push_back(p.weight);
        for (const Cap& cap : force.caps) element.push_back(cap.element), weight.push_back(1.0);
        for (size_t i = 0; i < weight.size(); ++i)
            if (weight[i] != 0) centres.push_back(static_cast<int>(i));
    }
    int size() const { return static_cast<int>(element.size()); }
};

// The nearest image in OpenMM's reduced box: z, then y, then x.
inline OpenMM::Vec3 nearest_image(OpenMM::Vec3 d, const OpenMM::Vec3* box) {
    for (int m = 2; box && m >= 0; --m) d -= box[m] * std::floor(d[m] / box[m][m] + 0.5);
    return d;
}

}  // namespace mlmm
