// Gradient of the angular symmetry functions: by cosine, mean distance and cutoff functions of each triple,
// then by the vectors from the centre to both neighbours.
#pragma once

#include "symmetry.h"

namespace mlmm {

// For n triples from `begin` on: derivatives of sum_{a,z} block[a, z] D_a w A_z in the cosine, the mean
// distance and the weight w.
inline void SymmetryFunctions::triple_gradient(const double* block, int begin, int n,
                                               SymmetryScratch& scratch) const {
    factors<true>(scratch.triples, begin, n, scratch);
    Triples& triples = scratch.triples;
    const int means = f_.means(), angles = f_.angles();
    for (int k = 0; k < n; k += kLanes) {
        const VectorD mean = load(&triples.mean[begin + k]), weight = load(&triples.weight[begin + k]);
        VectorD by_weight{}, by_mean{}, by_cosine{};
        for (int a = 0; a < means; ++a) {
            const VectorD d = load(&scratch.by_mean[a * kChunk + k]);
            VectorD value{}, slope{};
            for (int z = 0; z < angles; ++z) {
                const double g = block[a * angles + z];
                value += g * load(&scratch.by_angle[z * kChunk + k]);
                slope += g * load(&scratch.slopes[z * kChunk + k]);
            }
            by_weight += value * d;
            by_cosine += slope * d;
            by_mean += value * d * (mean - f_.shift_mean[a]) * (-2.0 * f_.eta_mean[a]);
        }
        store(&triples.by_weight[begin + k], by_weight);
        store(&triples.by_mean[begin + k], by_mean * weight);
        store(&triples.by_cosine[begin + k], by_cosine * weight);
    }
}

inline void SymmetryFunctions::angular_gradient(const Shell& shell, int row, const double* by_function,
                                                double* gx, double* gy, double* gz,
                                                SymmetryScratch& scratch) const {
    const int species = f_.species;
    const int* counts = &shell.count[row * species];
    const int* begins = &shell.begin[row * species];
    const int start = begins[0], end = begins[species - 1] + padded(counts[species - 1]);
    for (auto* v : {&scratch.gx, &scratch.gy, &scratch.gz, &scratch.along, &scratch.radial})
        v->assign(end - start, 0.0);
    // g: sum of dE/dcos times the other unit vector; along: of dE/dcos cos; radial: dE/dr.
    double* __restrict x = scratch.gx.data() - start;
    double* __restrict y = scratch.gy.data() - start;
    double* __restrict z = scratch.gz.data() - start;
    double* __restrict along = scratch.along.data() - start;
    double* __restrict radial = scratch.radial.data() - start;
    const double *ux = shell.x.data(), *uy = shell.y.data(), *uz = shell.z.data();
    const double *f = shell.f.data(), *df = shell.df.data();
    Triples& triples = scratch.triples;
    for (int s = 0; s < species; ++s) {
        for (int t = s; t < species; ++t) {
            if (!collect(shell, row, s, t, triples)) continue;
            const double* block = by_function + f_.begin(species + f_.pair[s * species + t]);
            for (int begin = 0; begin < triples.size; begin += kChunk)
                triple_gradient(block, begin, std::min(kChunk, triples.size - begin), scratch);
            int at = 0;
            for (int i = begins[s]; i < begins[s] + counts[s]; ++i) {
                const int first = s == t ? i + 1 : begins[t], last = begins[t] + counts[t];
                const double* by_cosine = triples.by_cosine.data() + at - first;
                const double* by_mean = triples.by_mean.data() + at - first;
                const double* by_weight = triples.by_weight.data() + at - first;
                const double* cosine = triples.cosine.data() + at - first;
                const double uxi = ux[i], uyi = uy[i], uzi = uz[i], fi = f[i], dfi = df[i];
                double sx = 0, sy = 0, sz = 0, sa = 0, sr = 0;
#pragma omp simd reduction(+ : sx, sy, sz, sa, sr)
                for (int j = first; j < last; ++j) {
                    const double c = 0.95 * by_cosine[j], a = by_cosine[j] * cosine[j];
                    sx += c * ux[j], sy += c * uy[j], sz += c * uz[j];
                    x[j] += c * uxi, y[j] += c * uyi, z[j] += c * uzi;
                    sa += a, along[j] += a;
                    sr += 0.5 * by_mean[j] + 2.0 * by_weight[j] * f[j] * dfi;
                    radial[j] += 0.5 * by_mean[j] + 2.0 * by_weight[j] * fi * df[j];
                }
                x[i] += sx, y[i] += sy, z[i] += sz, along[i] += sa, radial[i] += sr;
                at += last - first;
            }
        }
    }
    for (int s = 0; s < species; ++s) {
        for (int i = begins[s]; i < begins[s] + counts[s]; ++i) {
            const double inverse = 1.0 / shell.r[i], outward = radial[i] - along[i] * inverse;
            const int place = shell.atom[i];
            gx[place] += x[i] * inverse + outward * ux[i];
            gy[place] += y[i] * inverse + outward * uy[i];
            gz[place] += z[i] * inverse + outward * uz[i];
        }
    }
}

}  // namespace mlmm
