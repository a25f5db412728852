// Positions of particles and then caps as the networks take them, and the way of their gradient back to the particles.
#pragma once

#include <cmath>
#include <vector>

#include "centres.h"

namespace mlmm {

struct Places {
    std::vector<int> particles;
    std::vector<Cap> caps;

    size_t size() const { return particles.size() + caps.size(); }

    // Positions (particles and then caps, 3) from those of all particles of the System.
    void gather(const OpenMM::Vec3* all, const OpenMM::Vec3* box, std::vector<double>& positions) const {
        positions.resize(3 * size());
        const auto put = [&](size_t i, const OpenMM::Vec3& r) {
            for (int a = 0; a < 3; ++a) positions[3 * i + a] = r[a];
        };
        for (size_t i = 0; i < particles.size(); ++i) put(i, all[particles[i]]);
        for (size_t k = 0; k < caps.size(); ++k) {
            const OpenMM::Vec3 bond = nearest_image(all[caps[k].inner] - all[caps[k].outer], box);
            put(particles.size() + k, all[caps[k].outer] + bond * (caps[k].distance / std::sqrt(bond.dot(bond))));
        }
    }

    // Adds minus the gradient (particles and then caps, 3) to the forces on all particles.
    void scatter(const std::vector<double>& gradient, const OpenMM::Vec3* all, const OpenMM::Vec3* box,
                 OpenMM::Vec3* forces) const {
        const auto force = [&](size_t i) {
            return OpenMM::Vec3(-gradient[3 * i], -gradient[3 * i + 1], -gradient[3 * i + 2]);
        };
        for (size_t i = 0; i < particles.size(); ++i) forces[particles[i]] += force(i);
        for (size_t k = 0; k < caps.size(); ++k) {
            const OpenMM::Vec3 bond = nearest_image(all[caps[k].inner] - all[caps[k].outer], box);
            const double length = std::sqrt(bond.dot(bond));
            const OpenMM::Vec3 unit = bond / length, whole = force(particles.size() + k);
            // Across the bond only: along it the cap does not follow the atom that it stands for.
            const OpenMM::Vec3 share = (whole - unit * whole.dot(unit)) * (caps[k].distance / length);
            forces[caps[k].inner] += share;
            forces[caps[k].outer] += whole - share;
        }
    }
};

}  // namespace mlmm
