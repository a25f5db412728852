// Neighbours of some atoms among many, by cell lists, in any box; no limit on their number.
//
// The images are those of `minimum_image` in structures.py: exact below half of the smallest box width.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace mlmm {

// Box vectors in rows, reduced: a = (ax, 0, 0), b = (bx, by, 0), c = (cx, cy, cz).
struct Box {
    bool periodic = false;
    double ax = 1, bx = 0, by = 1, cx = 0, cy = 0, cz = 1;

    static double nearest(double x) {
        // Rounds to an integer without a call, so that loops over pairs become vectors.
        const double magic = 6755399441055744.0;
        return (x + magic) - magic;
    }

    void shorten(double& x, double& y, double& z) const {
        double k = nearest(z / cz);
        x -= k * cx, y -= k * cy, z -= k * cz;
        k = nearest(y / by);
        x -= k * bx, y -= k * by;
        x -= nearest(x / ax) * ax;
    }
};

// What is found around one centre.
struct Found {
    std::vector<double> x, y, z, squared;
    std::vector<int> atom;
    int size = 0;

    void reserve(size_t n) {
        if (atom.size() >= n) return;
        n = n + n / 2 + 64;
        for (auto* v : {&x, &y, &z, &squared}) v->resize(n);
        atom.resize(n);
    }
};

class NeighbourSearch {
   public:
    // Among n atoms, or among those of a list of n; false if a position or the box is no usable number.
    bool build(const double* positions, int64_t n, const double* cell, double scale, const int64_t* centres,
               int64_t n_centres, double cutoff, const int64_t* among = nullptr) {
        cutoff_ = cutoff;
        positions_ = positions, scale_ = scale, among_ = among;
        int64_t broken = 0;
        const auto check = [&](const double* p) {
            for (int a = 0; a < 3; ++a) broken += !(std::fabs(p[a]) <= kLargest);
        };
        for (int64_t i = 0; i < n; ++i) check(positions + 3 * atom(i));
        for (int64_t c = 0; among && c < n_centres; ++c) check(positions + 3 * centres[c]);
        box_ = Box();
        if (cell) {
            for (int i = 0; i < 9; ++i) broken += !(std::fabs(cell[i]) <= kLargest);
            box_.periodic = true;
            box_.ax = cell[0] * scale, box_.bx = cell[3] * scale, box_.by = cell[4] * scale;
            box_.cx = cell[6] * scale, box_.cy = cell[7] * scale, box_.cz = cell[8] * scale;
        }
        if (broken) return false;
        if (n_centres == 0) return true;
        find_block(centres, n_centres);
        if (in_block_)
            collect_block(n);
        else
            collect_box(n);
        sort_into_cells();
        return true;
    }

    // Every atom closer than the cutoff to an atom; the atom itself is left out.
    void find(int64_t centre, Found& found) const {
        double x, y, z;
        at(centre, x, y, z);
        found.size = 0;
        int place[3], low[3], high[3];
        cell_of(x, y, z, place);
        for (int a = 0; a < 3; ++a) {
            low[a] = place[a] - kReach, high[a] = place[a] + kReach;
            // In a block there is nothing beyond its faces; in a small box each cell must be visited once.
            if (in_block_)
                low[a] = std::max(low[a], 0), high[a] = std::min(high[a], count_[a] - 1);
            else if (count_[a] <= 2 * kReach)
                low[a] = 0, high[a] = count_[a] - 1;
        }
        for (int k = low[2]; k <= high[2]; ++k) {
            const int plane = wrapped(k, count_[2]) * count_[1];
            for (int j = low[1]; j <= high[1]; ++j) {
                const int* row = &begin_[(plane + wrapped(j, count_[1])) * count_[0]];
                // Cells along the first axis are neighbours in memory, up to where the box ends.
                scan(row[std::max(low[0], 0)], row[std::min(high[0] + 1, count_[0])], x, y, z, centre, found);
                if (low[0] < 0) scan(row[low[0] + count_[0]], row[count_[0]], x, y, z, centre, found);
                if (high[0] >= count_[0]) scan(row[0], row[high[0] + 1 - count_[0]], x, y, z, centre, found);
            }
        }
    }

   private:
    // A cell is as wide as this part of the cutoff, or wider.
    static constexpr int kReach = 2;
    // Beyond it an image cannot be told in double precision.
    static constexpr double kLargest = 1e12;

    int64_t atom(int64_t i) const { return among_ ? among_[i] : i; }

    static int wrapped(int i, int n) { return i < 0 ? i + n : i >= n ? i - n : i; }

    // The point in the block's own coordinates, or as it is.
    void at(int64_t atom, double& x, double& y, double& z) const {
        x = positions_[3 * atom] * scale_ - middle_[0];
        y = positions_[3 * atom + 1] * scale_ - middle_[1];
        z = positions_[3 * atom + 2] * scale_ - middle_[2];
        if (in_block_ && box_.periodic) box_.shorten(x, y, z);
    }

    // The rectangular block that holds all neighbours, if it is smaller than the box: inside, the image of
    // an atom does not depend on whom it is seen by, and the problem is an open one.
    void find_block(const int64_t* centres, int64_t n_centres) {
        const double* first = positions_ + 3 * centres[0];
        double low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
        for (int64_t c = 0; c < n_centres; ++c) {
            const double* p = positions_ + 3 * centres[c];
            double d[3] = {(p[0] - first[0]) * scale_, (p[1] - first[1]) * scale_, (p[2] - first[2]) * scale_};
            if (box_.periodic) box_.shorten(d[0], d[1], d[2]);
            for (int a = 0; a < 3; ++a) low[a] = std::min(low[a], d[a]), high[a] = std::max(high[a], d[a]);
        }
        const double diagonal[3] = {box_.ax, box_.by, box_.cz};
        in_block_ = true;
        for (int a = 0; a < 3; ++a) {
            half_[a] = 0.5 * (high[a] - low[a]) + cutoff_ * (1.0 + 1e-9);
            if (box_.periodic && !(half_[a] < 0.5 * diagonal[a])) in_block_ = false;
        }
        for (int a = 0; a < 3; ++a)
            middle_[a] = in_block_ ? first[a] * scale_ + 0.5 * (low[a] + high[a]) : 0.0;
    }

    void collect_block(int64_t n) {
        raw_.resize(0);
        raw_atom_.resize(0);
        for (int64_t i = 0; i < n; ++i) {
            double x, y, z;
            at(atom(i), x, y, z);
            if (std::fabs(x) <= half_[0] && std::fabs(y) <= half_[1] && std::fabs(z) <= half_[2]) {
                raw_.insert(raw_.end(), {x, y, z});
                raw_atom_.push_back(static_cast<int>(atom(i)));
            }
        }
        for (int a = 0; a < 3; ++a)
            count_[a] = static_cast<int>(std::clamp(std::floor(2.0 * kReach * half_[a] / cutoff_), 1.0, 1e6));
        limit_cells();
    }

    void collect_box(int64_t n) {
        raw_.resize(3 * n);
        raw_atom_.resize(n);
        for (int64_t i = 0; i < n; ++i) {
            at(atom(i), raw_[3 * i], raw_[3 * i + 1], raw_[3 * i + 2]);
            raw_atom_[i] = static_cast<int>(atom(i));
        }
        // Distances between opposite faces.
        const Box& b = box_;
        const double volume = b.ax * b.by * b.cz;
        const double width[3] = {
            volume / std::sqrt(b.by * b.cz * b.by * b.cz + b.bx * b.cz * b.bx * b.cz +
                               (b.bx * b.cy - b.by * b.cx) * (b.bx * b.cy - b.by * b.cx)),
            b.by * b.cz / std::sqrt(b.cy * b.cy + b.cz * b.cz), b.cz};
        for (int a = 0; a < 3; ++a)
            count_[a] = static_cast<int>(std::clamp(std::floor(kReach * width[a] / cutoff_), 1.0, 1e6));
        limit_cells();
    }

    // Few atoms far apart must not make many empty cells.
    void limit_cells() {
        const double most = 2.0 * static_cast<double>(raw_atom_.size()) + 64.0;
        while (static_cast<double>(count_[0]) * count_[1] * count_[2] > most) {
            int* largest = std::max_element(count_, count_ + 3);
            *largest = (*largest + 1) / 2;
        }
    }

    void cell_of(double x, double y, double z, int* place) const {
        double s[3];
        if (in_block_) {
            const double p[3] = {x, y, z};
            for (int a = 0; a < 3; ++a) s[a] = 0.5 + 0.5 * p[a] / half_[a];
        } else {
            s[2] = z / box_.cz;
            s[1] = (y - s[2] * box_.cy) / box_.by;
            s[0] = (x - s[1] * box_.bx - s[2] * box_.cx) / box_.ax;
            for (int a = 0; a < 3; ++a) s[a] -= std::floor(s[a]);
        }
        for (int a = 0; a < 3; ++a)
            place[a] = static_cast<int>(std::clamp(s[a] * count_[a], 0.0, count_[a] - 0.5));
    }

    void sort_into_cells() {
        const int n = static_cast<int>(raw_atom_.size()), cells = count_[0] * count_[1] * count_[2];
        begin_.assign(cells + 1, 0);
        place_.resize(n);
        for (int i = 0; i < n; ++i) {
            int p[3];
            cell_of(raw_[3 * i], raw_[3 * i + 1], raw_[3 * i + 2], p);
            place_[i] = (p[2] * count_[1] + p[1]) * count_[0] + p[0];
            ++begin_[place_[i] + 1];
        }
        for (int c = 0; c < cells; ++c) begin_[c + 1] += begin_[c];
        for (auto* v : {&x_, &y_, &z_}) v->resize(n);
        atom_.resize(n);
        next_.assign(begin_.begin(), begin_.end() - 1);
        for (int i = 0; i < n; ++i) {
            const int k = next_[place_[i]]++;
            x_[k] = raw_[3 * i], y_[k] = raw_[3 * i + 1], z_[k] = raw_[3 * i + 2];
            atom_[k] = raw_atom_[i];
        }
    }

    void scan(int begin, int end, double x, double y, double z, int64_t centre, Found& found) const {
        const int n = end - begin;
        found.reserve(static_cast<size_t>(found.size) + n);
        double* __restrict dx = found.x.data() + found.size;
        double* __restrict dy = found.y.data() + found.size;
        double* __restrict dz = found.z.data() + found.size;
        double* __restrict squared = found.squared.data() + found.size;
        const double *px = x_.data() + begin, *py = y_.data() + begin, *pz = z_.data() + begin;
        const bool images = !in_block_;
        for (int i = 0; i < n; ++i) dx[i] = px[i] - x, dy[i] = py[i] - y, dz[i] = pz[i] - z;
        if (images) {
            const Box b = box_;
            for (int i = 0; i < n; ++i) b.shorten(dx[i], dy[i], dz[i]);
        }
        for (int i = 0; i < n; ++i) squared[i] = dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i];
        const double most = cutoff_ * cutoff_;
        const int* atoms = atom_.data() + begin;
        int* kept_atoms = found.atom.data() + found.size;
        int kept = 0;
        // Without a branch, which would be guessed wrong at every other atom.
        for (int i = 0; i < n; ++i) {
            dx[kept] = dx[i], dy[kept] = dy[i], dz[kept] = dz[i], squared[kept] = squared[i];
            kept_atoms[kept] = atoms[i];
            kept += (squared[i] < most) & (atoms[i] != centre);
        }
        found.size += kept;
    }

    const double* positions_ = nullptr;
    const int64_t* among_ = nullptr;
    double scale_ = 1.0, cutoff_ = 0.0, half_[3] = {1, 1, 1}, middle_[3] = {0, 0, 0};
    Box box_;
    bool in_block_ = true;
    int count_[3] = {1, 1, 1};
    std::vector<double> raw_, x_, y_, z_;
    std::vector<int> raw_atom_, atom_, begin_, place_, next_;
};

}  // namespace mlmm
