// lambda of molecules by their distance from centres: 1 - lambda = prod_a g(|r_m - r_a|), as in mlmm/zones/adaptive.py;
// or one lambda for all of them, whatever the positions.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "arrays.h"
#include "centres.h"

namespace mlmm {

class ZoneWeights {
   public:
    explicit ZoneWeights(const Arrays& arrays) {
        start = arrays.integers("molecule_start", 1, 0, 1 << 30);
        atoms = arrays.particles("molecule_atoms");
        if (start.empty() || start.front() != 0 || start.back() != static_cast<int>(atoms.size()) ||
            !std::is_sorted(start.begin(), start.end()))
            arrays.refuse("molecule_start", "another number of atoms");
        for (size_t m = 0; m + 1 < start.size(); ++m)
            if (start[m] == start[m + 1]) arrays.refuse("molecule_start", "a molecule without atoms");
        anchors_ = arrays.numbers("anchors", atoms.size());
        centres_ = arrays.particles("centres");
        const std::vector<double>& zone = arrays.numbers("zone", 2);
        plateau_ = zone[0], width_ = zone[1];
        if (!(plateau_ > 0 && width_ > 0 && std::isfinite(plateau_ + width_)) || centres_.empty())
            arrays.refuse("zone", "a zone without width, plateau or centre");
        lambda.assign(start.size() - 1, 0.0);
        const size_t given = arrays.size("uniform");
        const std::vector<double>& uniform = arrays.numbers("uniform", given);
        uniform_ = given > 0;
        if (given > 1 || (uniform_ && !(uniform[0] >= 0 && uniform[0] <= 1))) arrays.refuse("uniform", "no lambda");
        if (uniform_) lambda.assign(lambda.size(), uniform[0]);
    }

    // Fills `lambda`; a position that is no number gives one that is none.
    void evaluate(const OpenMM::Vec3* where, const OpenMM::Vec3* box) {
        if (uniform_) return;
        const OpenMM::Vec3 first = where[centres_[0]];
        double spread = 0.0, half = INFINITY;
        for (const int a : centres_) spread = std::max(spread, length(nearest_image(where[a] - first, box)));
        for (int k = 0; box && k < 3; ++k) half = std::min(half, 0.5 * box[k][k]);
        // Farther from the first centre than this, a molecule is beyond reach of all of them.
        const double far = plateau_ + width_ + spread;
        const double limit = far < half ? far * far * (1 + 1e-12) : INFINITY;
        for (size_t m = 0; m < lambda.size(); ++m) {
            const OpenMM::Vec3 anchor = anchor_of(m, where, box), d = nearest_image(anchor - first, box);
            lambda[m] = d.dot(d) > limit ? 0.0 : at(anchor, where, box);
        }
    }

    // Adds -by_lambda dlambda/dr to the forces on the atoms of the anchor and on the centres.
    void add_forces(const std::vector<double>& by_lambda, const OpenMM::Vec3* where, const OpenMM::Vec3* box,
                    OpenMM::Vec3* forces) {
        if (uniform_) return;
        const size_t n = centres_.size();
        g_.resize(n), slope_.resize(n), unit_.resize(n);
        for (size_t m = 0; m < lambda.size(); ++m) {
            // Its slope is zero at both ends.
            if (lambda[m] == 0.0 || lambda[m] == 1.0) continue;
            const OpenMM::Vec3 anchor = anchor_of(m, where, box);
            for (size_t a = 0; a < n; ++a) {
                const OpenMM::Vec3 d = nearest_image(anchor - where[centres_[a]], box);
                const double r = std::max(length(d), 1e-6), x = clamped((r - plateau_) / width_);
                g_[a] = step(x), slope_[a] = 30.0 * x * x * (1 - x) * (1 - x) / width_;
                unit_[a] = d / r;
            }
            OpenMM::Vec3 whole;
            for (size_t a = 0; a < n; ++a) {
                if (slope_[a] == 0.0) continue;
                double others = 1.0;
                for (size_t b = 0; b < n; ++b) others *= b == a ? 1.0 : g_[b];
                // lambda falls with the distance.
                const OpenMM::Vec3 push = unit_[a] * (by_lambda[m] * others * slope_[a]);
                whole += push;
                forces[centres_[a]] -= push;
            }
            double rest = 1.0;
            for (int i = start[m] + 1; i < start[m + 1]; ++i) {
                if (anchors_[i] == 0.0) continue;
                rest -= anchors_[i];
                forces[atoms[i]] += whole * anchors_[i];
            }
            forces[atoms[start[m]]] += whole * rest;
        }
    }

    std::vector<double> lambda;     // of each molecule
    std::vector<int> start, atoms;  // molecule m: atoms[start[m]] to atoms[start[m + 1]]

   private:
    static double length(const OpenMM::Vec3& d) { return std::sqrt(d.dot(d)); }
    // In this order what is no number stays so.
    static double clamped(double x) { return x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x; }
    static double step(double x) { return x * x * x * (10.0 - x * (15.0 - 6.0 * x)); }

    OpenMM::Vec3 anchor_of(size_t m, const OpenMM::Vec3* where, const OpenMM::Vec3* box) const {
        const OpenMM::Vec3 base = where[atoms[start[m]]];
        OpenMM::Vec3 anchor = base;
        for (int i = start[m] + 1; i < start[m + 1]; ++i)
            if (anchors_[i] != 0.0) anchor += nearest_image(where[atoms[i]] - base, box) * anchors_[i];
        return anchor;
    }

    double at(const OpenMM::Vec3& anchor, const OpenMM::Vec3* where, const OpenMM::Vec3* box) const {
        double outside = 1.0;
        for (const int a : centres_) {
            const OpenMM::Vec3 d = nearest_image(anchor - where[a], box);
            outside *= step(clamped((length(d) - plateau_) / width_));
        }
        return 1.0 - outside;
    }

    std::vector<double> anchors_, g_, slope_;
    std::vector<OpenMM::Vec3> unit_;
    std::vector<int> centres_;
    double plateau_ = 0, width_ = 0;
    bool uniform_ = false;
};

}  // namespace mlmm
