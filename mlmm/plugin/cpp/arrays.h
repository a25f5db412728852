// Named arrays of a BlendForce, checked as they are read.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "blend_force.h"
#include "openmm/OpenMMException.h"

namespace mlmm {

class Arrays {
   public:
    Arrays(const BlendForce& force, int n_particles) : force_(force), n_particles_(n_particles) {}

    int n_particles() const { return n_particles_; }

    // Integers from `low` to `high`, a multiple of `width` of them.
    const std::vector<int>& integers(const std::string& name, size_t width, int low, int high) const {
        const auto place = force_.integers.find(name);
        if (place == force_.integers.end()) refuse(name, "none");
        if (place->second.size() % width != 0) refuse(name, std::to_string(place->second.size()) + " numbers");
        for (const int value : place->second)
            if (value < low || value > high) refuse(name, std::to_string(value));
        return place->second;
    }
    // Indices of particles of the System.
    const std::vector<int>& particles(const std::string& name, size_t width = 1) const {
        return integers(name, width, 0, n_particles_ - 1);
    }
    // Those, each of them once.
    const std::vector<int>& different_particles(const std::string& name) const {
        const std::vector<int>& found = particles(name);
        std::vector<char> seen(n_particles_, 0);
        for (const int particle : found) {
            if (seen[particle]) refuse(name, "particle " + std::to_string(particle) + " twice");
            seen[particle] = 1;
        }
        return found;
    }
    // So many numbers, finite; a cutoff may be infinite.
    const std::vector<double>& numbers(const std::string& name, size_t size) const {
        const auto place = force_.numbers.find(name);
        if (place == force_.numbers.end()) refuse(name, "none");
        if (place->second.size() != size)
            refuse(name, std::to_string(place->second.size()) + " numbers instead of " + std::to_string(size));
        for (const double value : place->second)
            if (std::isnan(value) || (std::isinf(value) && name != "ranges" && name != "core_ranges"))
                refuse(name, std::isnan(value) ? "NaN" : "infinity");
        return place->second;
    }
    size_t size(const std::string& name) const {
        const auto place = force_.numbers.find(name);
        return place == force_.numbers.end() ? 0 : place->second.size();
    }
    [[noreturn]] void refuse(const std::string& name, const std::string& found) const {
        throw OpenMM::OpenMMException("Expected arrays that belong together in the " + force_.kind +
                                      " ANIBlendForce, but got " + found + " for '" + name +
                                      "'. Make the force anew with mlmm.plugin.");
    }

   private:
    const BlendForce& force_;
    int n_particles_;
};

// Pairs for which a second thread is worth its start.
constexpr size_t kPairsPerThread = 20000;

inline std::vector<int64_t> wide(const std::vector<int>& values) { return {values.begin(), values.end()}; }

// Pairs with parameters of their own, as the kernels read them: partners of each of n atoms.
struct Special {
    std::vector<int64_t> start, other;

    Special(const Arrays& arrays, const std::string& name, int n)
        : start(wide(arrays.integers(name + "_start", 1, 0, 1 << 30))),
          other(wide(arrays.integers(name + "_other", 1, 0, n - 1))) {
        if (start.size() != static_cast<size_t>(n) + 1 || start.front() != 0 ||
            start.back() != static_cast<int64_t>(other.size()) || !std::is_sorted(start.begin(), start.end()))
            arrays.refuse(name + "_start", "another number of partners");
    }
};

}  // namespace mlmm
