// A committee bound to nothing: weights by element; and one evaluation of it, kept for its gradient.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "networks.h"
#include "pieces.h"

namespace mlmm {

constexpr int kBatchRows = 48;

// Centres of one element that pass through the networks together.
template <class T>
struct Batch {
    int element = 0, rows = 0;
    std::vector<int64_t> place;  // among the centres
    Shell radial, angular;
    std::vector<Range> ranges;  // functions that are not zero in every row
    std::vector<T> functions;   // (rows, length)
    std::vector<T> slopes;      // (members, rows, length): gradients of the members' energies
    std::vector<double> gx, gy, gz;
};

struct Scratch {
    SymmetryScratch symmetry;
    std::vector<double> by_function;
};

template <class T>
struct Evaluation {
    NeighbourSearch search;
    std::vector<Batch<T>> batches;
    size_t n_batches = 0;
    std::vector<Scratch> scratch;
    std::vector<NetworkScratch<T>> network_scratch;
    std::vector<double> energies;
    std::vector<int64_t> centres;
    int64_t n_atoms = 0;
    bool broken = false;
    std::mutex busy;
};

template <class T>
class Model {
   public:
    Functions functions;
    int members = 0;
    double length_scale = 1, energy_scale = 1;

    bool has(int element) const {
        std::lock_guard<std::mutex> lock(mutex_);
        return networks_[element] != nullptr;
    }

    void set_species(int n) { networks_.resize(n); }

    void put(int element, std::shared_ptr<const ElementNetworks<T>> networks) {
        std::lock_guard<std::mutex> lock(mutex_);
        networks_[element] = std::move(networks);
    }

    // Work space is kept: fresh memory would cost as much as a small evaluation.
    std::unique_ptr<Evaluation<T>> borrow() {
        std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.empty()) return std::make_unique<Evaluation<T>>();
        auto result = std::move(idle_.back());
        idle_.pop_back();
        return result;
    }

    void give_back(std::unique_ptr<Evaluation<T>> evaluation) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.size() < 4) idle_.push_back(std::move(evaluation));
    }

    // Energies (members, centres); false if an element of a centre has no networks here.
    bool forward(Evaluation<T>& e, const double* positions, int64_t n_atoms, const double* cell,
                 const int64_t* species, const int64_t* centres, int64_t n_centres, int threads,
                 bool gradient, double* energies) {
        std::vector<std::shared_ptr<const ElementNetworks<T>>> networks;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            networks = networks_;
        }
        e.centres.assign(centres, centres + n_centres), e.n_atoms = n_atoms;
        e.n_batches = 0;
        e.broken = !e.search.build(positions, n_atoms, cell, length_scale, centres, n_centres,
                                   functions.radial_cutoff);
        if (e.broken) {
            std::fill(energies, energies + members * n_centres, std::nan(""));
            return true;
        }
        if (!make_batches(e, species, networks)) return false;
        const int batches = static_cast<int>(e.n_batches);
        prepare(e, threads);
        for_each_piece(batches, threads, [&](int b, int thread) {
            describe(e.batches[b], e, species, e.scratch[thread], gradient);
        });
        // One member's weights stay in the cache while all batches of the element pass through them.
        std::vector<std::pair<int, int>> pieces;
        for (int first = 0, last = 0; first < batches; first = last) {
            while (last < batches && e.batches[last].element == e.batches[first].element) ++last;
            for (int m = 0; m < members; ++m)
                for (int b = first; b < last; ++b) pieces.emplace_back(b, m);
        }
        const size_t length = functions.length();
        for_each_piece(static_cast<int>(pieces.size()), threads, [&](int k, int thread) {
            Batch<T>& batch = e.batches[pieces[k].first];
            const int m = pieces[k].second;
            double rows[kBatchRows];
            networks[batch.element]->evaluate(
                m, batch.functions.data(), batch.rows, batch.ranges, rows,
                gradient ? batch.slopes.data() + length * batch.rows * m : nullptr, e.network_scratch[thread]);
            for (int r = 0; r < batch.rows; ++r)
                energies[m * n_centres + batch.place[r]] = rows[r] * energy_scale;
        });
        return true;
    }

    // Adds to `gradient` (n_atoms, 3) that of sum by_energy (members, centres) times the energies.
    void backward(Evaluation<T>& e, const double* by_energy, int threads, double* gradient) {
        std::lock_guard<std::mutex> lock(e.busy);
        if (e.broken)
            std::fill(gradient, gradient + 3 * e.n_atoms, std::nan(""));
        else
            add_gradient(e, by_energy, threads, gradient, nullptr);
    }

    // The same of a whole evaluation that the caller has locked; more: for each batch further derivatives by
    // its functions (rows, length), or null.
    void add_gradient(Evaluation<T>& e, const double* by_energy, int threads, double* gradient,
                      const std::vector<T>* more) {
        prepare(e, threads);
        const int64_t n_centres = static_cast<int64_t>(e.centres.size());
        for_each_piece(static_cast<int>(e.n_batches), threads, [&](int b, int thread) {
            differentiate(e.batches[b], by_energy, n_centres, more ? more[b].data() : nullptr, e.scratch[thread]);
        });
        // In a fixed order, so that the sum is the same bit by bit.
        for (size_t b = 0; b < e.n_batches; ++b) {
            const Batch<T>& batch = e.batches[b];
            const Shell& shell = batch.radial;
            for (int r = 0; r < batch.rows; ++r) {
                double* own = gradient + 3 * e.centres[batch.place[r]];
                for (int s = 0; s < functions.species; ++s) {
                    const int run = r * functions.species + s;
                    for (int k = shell.begin[run]; k < shell.begin[run] + shell.count[run]; ++k) {
                        double* other = gradient + 3 * shell.atom[k];
                        other[0] += batch.gx[k], other[1] += batch.gy[k], other[2] += batch.gz[k];
                        own[0] -= batch.gx[k], own[1] -= batch.gy[k], own[2] -= batch.gz[k];
                    }
                }
            }
        }
    }

   private:
    static void prepare(Evaluation<T>& e, int threads) {
        const size_t n = std::max(threads, 1);
        if (e.scratch.size() < n) e.scratch.resize(n), e.network_scratch.resize(n);
    }

    bool make_batches(Evaluation<T>& e, const int64_t* species,
                      const std::vector<std::shared_ptr<const ElementNetworks<T>>>& networks) {
        std::vector<std::vector<int64_t>> places(functions.species);
        for (size_t c = 0; c < e.centres.size(); ++c)
            places[species[e.centres[c]]].push_back(static_cast<int64_t>(c));
        for (int s = 0; s < functions.species; ++s) {
            const int n = static_cast<int>(places[s].size());
            if (n && !networks[s]) return false;
            const int groups = (n + kBatchRows - 1) / kBatchRows;
            for (int g = 0; g < groups; ++g) {
                if (e.batches.size() == e.n_batches) e.batches.emplace_back();
                Batch<T>& batch = e.batches[e.n_batches++];
                const int64_t first = static_cast<int64_t>(n) * g / groups;
                const int64_t last = static_cast<int64_t>(n) * (g + 1) / groups;
                batch.element = s, batch.rows = static_cast<int>(last - first);
                batch.place.assign(places[s].begin() + first, places[s].begin() + last);
            }
        }
        return true;
    }

    void describe(Batch<T>& batch, const Evaluation<T>& e, const int64_t* species, Scratch& scratch,
                  bool gradient) const {
        const SymmetryFunctions symmetry(functions);
        batch.radial.clear(), batch.angular.clear();
        for (int r = 0; r < batch.rows; ++r)
            symmetry.neighbours(e.search, species, e.centres[batch.place[r]], batch.radial, batch.angular,
                                scratch.symmetry);
        batch.radial.switch_off(functions.radial_cutoff);
        batch.angular.switch_off(functions.angular_cutoff);
        const size_t length = functions.length();
        batch.functions.assign(length * batch.rows, T(0));
        for (int r = 0; r < batch.rows; ++r)
            symmetry.values(batch.radial, batch.angular, r, batch.functions.data() + length * r,
                            scratch.symmetry);
        find_ranges(batch);
        if (gradient && batch.slopes.size() < length * batch.rows * members)
            batch.slopes.resize(length * batch.rows * members);
    }

    // Blocks of elements and pairs of elements that some row sees; neighbouring blocks are joined.
    void find_ranges(Batch<T>& batch) const {
        const int n = functions.species;
        std::vector<char> present(functions.blocks(), 0);
        for (int r = 0; r < batch.rows; ++r) {
            for (int s = 0; s < n; ++s) {
                if (batch.radial.count[r * n + s]) present[s] = 1;
                const int count = batch.angular.count[r * n + s];
                if (count > 1) present[n + functions.pair[s * n + s]] = 1;
                for (int t = s + 1; count && t < n; ++t)
                    if (batch.angular.count[r * n + t]) present[n + functions.pair[s * n + t]] = 1;
            }
        }
        batch.ranges.clear();
        for (int b = 0; b < functions.blocks(); ++b) {
            if (!present[b]) continue;
            const Range range{functions.begin(b), functions.begin(b + 1)};
            if (!batch.ranges.empty() && batch.ranges.back().end == range.begin)
                batch.ranges.back().end = range.end;
            else
                batch.ranges.push_back(range);
        }
    }

    void differentiate(Batch<T>& batch, const double* by_energy, int64_t n_centres, const T* more,
                       Scratch& scratch) const {
        const SymmetryFunctions symmetry(functions);
        const size_t length = functions.length();
        for (auto* v : {&batch.gx, &batch.gy, &batch.gz})
            if (v->size() < static_cast<size_t>(batch.radial.size)) v->resize(batch.radial.size);
        scratch.by_function.resize(length);
        double* sums = scratch.by_function.data();
        for (int r = 0; r < batch.rows; ++r) {
            std::fill(sums, sums + length, 0.0);
            for (int m = 0; m < members; ++m) {
                const double factor =
                    by_energy[m * n_centres + batch.place[r]] * energy_scale * length_scale;
                const T* slopes = batch.slopes.data() + length * (static_cast<size_t>(m) * batch.rows + r);
                for (const Range& range : batch.ranges)
                    for (int i = range.begin; i < range.end; ++i) sums[i] += factor * slopes[i];
            }
            for (const Range& range : batch.ranges)
                for (int i = range.begin; more && i < range.end; ++i)
                    sums[i] += length_scale * more[length * r + i];
            symmetry.gradient(batch.radial, batch.angular, r, sums, batch.gx.data(), batch.gy.data(),
                              batch.gz.data(), scratch.symmetry);
        }
    }

    std::vector<std::shared_ptr<const ElementNetworks<T>>> networks_;
    std::vector<std::unique_ptr<Evaluation<T>>> idle_;
    mutable std::mutex mutex_;
};

}  // namespace mlmm
