// What point charges within 8 angstrom induce on atoms, and its derivatives; float64, lengths in angstrom.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "neighbours.h"

namespace mlmm {

// w(x) = 1/x - 28 x^5 + 48 x^6 - 21 x^7 and its derivative.
inline double envelope(double x, double& slope) {
    const double x2 = x * x, x4 = x2 * x2, x5 = x4 * x;
    slope = -1.0 / x2 - x4 * (140.0 - x * (288.0 - 147.0 * x));
    return 1.0 / x - x5 * (28.0 - x * (48.0 - 21.0 * x));
}

// Two coefficients of a distance: a perceptron of as many hidden units and radial functions.
struct PolarisationNetwork {
    double frequency[2], hidden[2][2], bias[2], out[2][2], cutoff, scaling;
};

class Response {
   public:
    // Sums (n, 9): strength B1 v, then strength B2 (v v - I/3) as xx yy zz xy xz yz.
    void evaluate(const PolarisationNetwork& network, const Box& box, int n, const double* atoms, int64_t m,
                  const double* sources, const double* charges, double width, double* sums) {
        pairs_.clear();
        const double limit = network.cutoff * network.cutoff;
        for (int i = 0; i < n; ++i) {
            double* own = sums + 9 * i;
            std::fill(own, own + 9, 0.0);
            for (int64_t k = 0; k < m; ++k) {
                double v[3];
                for (int a = 0; a < 3; ++a) v[a] = sources[3 * k + a] - atoms[3 * i + a];
                if (box.periodic) box.shorten(v[0], v[1], v[2]);
                const double squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
                if (squared >= limit) continue;
                Pair pair;
                pair.atom = i, pair.source = k;
                const double distance = std::sqrt(squared);
                coefficients(network, distance, charges[k], width, pair);
                pair.inverse = 1.0 / distance;
                for (int a = 0; a < 3; ++a) pair.v[a] = v[a] * pair.inverse, own[a] += pair.p[0] * pair.v[a];
                double t[6];
                traceless(pair.v, t);
                for (int a = 0; a < 6; ++a) own[3 + a] += pair.p[1] * t[a];
                pairs_.push_back(pair);
            }
        }
    }

    // Adds to gradients of atoms (n, 3) and sources (m, 3) for derivatives by the sums (n, 9).
    void backward(const double* by_sums, double* by_atoms, double* by_sources) const {
        for (const Pair& pair : pairs_) {
            const double *g = by_sums + 9 * pair.atom, *h = g + 3, *v = pair.v;
            double t[6];
            traceless(v, t);
            double along = (g[0] * v[0] + g[1] * v[1] + g[2] * v[2]) * pair.slope[0], second = 0.0;
            for (int a = 0; a < 6; ++a) second += h[a] * t[a];
            along += second * pair.slope[1];
            double d[3] = {2.0 * h[0] * v[0] + h[3] * v[1] + h[4] * v[2],
                           h[3] * v[0] + 2.0 * h[1] * v[1] + h[5] * v[2],
                           h[4] * v[0] + h[5] * v[1] + 2.0 * h[2] * v[2]};
            double radial = 0.0;
            for (int a = 0; a < 3; ++a) d[a] = pair.p[0] * g[a] + pair.p[1] * d[a], radial += d[a] * v[a];
            for (int a = 0; a < 3; ++a) {
                const double by = along * v[a] + (d[a] - radial * v[a]) * pair.inverse;
                by_atoms[3 * pair.atom + a] -= by, by_sources[3 * pair.source + a] += by;
            }
        }
    }

   private:
    struct Pair {
        int atom;
        int64_t source;
        double v[3], inverse, p[2], slope[2];
    };

    static void traceless(const double* v, double* t) {
        for (int a = 0; a < 3; ++a) t[a] = v[a] * v[a] - 1.0 / 3.0;
        t[3] = v[0] * v[1], t[4] = v[0] * v[2], t[5] = v[1] * v[2];
    }

    // Strength times each coefficient, and the derivatives of both by the distance.
    static void coefficients(const PolarisationNetwork& network, double distance, double charge, double width,
                             Pair& pair) {
        const double x = distance / network.cutoff;
        double dw;
        const double w = envelope(x, dw);
        double b[2], db[2], y[2], dy[2];
        for (int n = 0; n < 2; ++n) {
            const double f = network.frequency[n], s = std::sin(f * x), c = std::cos(f * x);
            b[n] = w * s, db[n] = (dw * s + w * f * c) / network.cutoff;
        }
        for (int j = 0; j < 2; ++j) {
            const double* weights = network.hidden[j];
            const double z = network.bias[j] + weights[0] * b[0] + weights[1] * b[1];
            const double sigmoid = 1.0 / (1.0 + std::exp(-z));
            y[j] = z * sigmoid;
            dy[j] = sigmoid * (1.0 + z * (1.0 - sigmoid)) * (weights[0] * db[0] + weights[1] * db[1]);
        }
        // Share of a Gaussian charge that is nearer than the atom.
        double share = 1.0, by_distance = 0.0;
        if (width > 0.0) {
            const double scale = std::sqrt(0.5) / width, t = scale * distance;
            if (t < 6.5) {
                const double gauss = 1.12837916709551257390 * std::exp(-t * t);
                share = std::erf(t) - t * gauss;
                by_distance = 2.0 * t * t * gauss * scale;
            }
        }
        const double inverse = 1.0 / distance, common = network.scaling * charge * inverse * inverse * share;
        const double strength = w * common * share;
        const double slope = common * (share * (dw / network.cutoff - 2.0 * w * inverse) + 2.0 * w * by_distance);
        for (int k = 0; k < 2; ++k) {
            const double value = network.out[k][0] * y[0] + network.out[k][1] * y[1];
            pair.p[k] = value * strength;
            pair.slope[k] = (network.out[k][0] * dy[0] + network.out[k][1] * dy[1]) * strength + value * slope;
        }
    }

    std::vector<Pair> pairs_;
};

}  // namespace mlmm
