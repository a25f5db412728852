#include "packing.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "centres.h"

using OpenMM::OpenMMException;

namespace mlmm {

namespace {

constexpr int kLanes = 32;

int padded(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

std::string text(double value) {
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, "%.17e", value);
    return "NUMBER(" + std::string(buffer) + ")";
}

// Lines that take x to the power of a whole number, from `result` = x on; empty for another.
std::string whole_power(const std::vector<double>& exponents) {
    const int whole = static_cast<int>(exponents[0]) - 1;
    for (const double e : exponents)
        if (e != exponents[0] || e - 1 != whole || whole < 1 || whole > 1024) return "";
    int bit = 1;
    while (2 * bit <= whole) bit *= 2;
    std::string lines;
    for (bit /= 2; bit; bit /= 2) {
        lines += "result = result*result;";
        if (whole & bit) lines += "result = result*x;";
    }
    return lines.empty() ? ";" : lines;
}

}  // namespace

Packing::Packing(const ANIForce& force) {
    pack_atoms(force);
    pack_constants(*force.committee);
    pack_networks(*force.committee);
}

std::vector<int> Packing::tiles(int most) const {
    std::vector<int> list;
    for (int row = 0; row < static_cast<int>(element_of_row.size()); ++row) {
        const int element = element_of_row[row];
        if (list.empty() || list[list.size() - 3] != element || list.back() == most)
            list.insert(list.end(), {element, row, 0});
        ++list.back();
    }
    return list;
}

void Packing::pack_atoms(const ANIForce& force) {
    const Atoms atoms(force);
    order.resize(atoms.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return atoms.element[a] < atoms.element[b]; });
    const int n_particles = static_cast<int>(force.particles.size());
    std::vector<int> row_of_atom(atoms.size(), -1);
    for (int k = 0; k < atoms.size(); ++k) {
        const int atom = order[k], element = atoms.element[atom];
        if (species.empty() || species.back() != element) species.push_back(element), species_start.push_back(k);
        particles.push_back(atom < n_particles ? force.particles[atom].particle : n_particles - 1 - atom);
        if (atoms.weight[atom] == 0) continue;
        if (elements.empty() || elements.back() != element) elements.push_back(element);
        row_of_atom[atom] = static_cast<int>(centres.size());
        element_of_row.push_back(static_cast<int>(elements.size()) - 1);
        centres.push_back(k);
    }
    for (const int atom : atoms.centres) row_of_centre.push_back(row_of_atom[atom]);
    for (const Cap& cap : force.caps) {
        cap_particles.insert(cap_particles.end(), {cap.outer, cap.inner});
        cap_distances.push_back(cap.distance);
    }
    defines["NUM_ATOMS"] = std::to_string(atoms.size());
    defines["NUM_CENTRES"] = std::to_string(centres.size());
    defines["NUM_CAPS"] = std::to_string(force.caps.size());
    defines["NUM_SPECIES"] = std::to_string(species.size());
    defines["NUM_BLOCKS"] = std::to_string(species.size() * (species.size() + 3) / 2);
    if (force.periodic) defines["USE_PERIODIC"] = "1";
}

void Packing::pack_constants(const Committee& committee) {
    for (const auto* list : {&committee.eta_radial, &committee.shift_radial, &committee.eta_mean,
                             &committee.shift_mean, &committee.zeta})
        constants.insert(constants.end(), list->begin(), list->end());
    for (const double angle : committee.angle) constants.push_back(0.5 * std::cos(angle));
    for (const double angle : committee.angle) constants.push_back(0.5 * std::sin(angle));
    const int n = static_cast<int>(species.size());
    functions = padded(n * committee.radial() + n * (n + 1) / 2 * committee.angular());
    const std::string power = whole_power(committee.zeta);
    if (!power.empty()) defines["WHOLE_POWER"] = power;
    defines["RADIAL_CUTOFF"] = text(committee.radial_cutoff);
    defines["ANGULAR_CUTOFF"] = text(committee.angular_cutoff);
    defines["LENGTH"] = text(committee.length), defines["ENERGY"] = text(committee.energy);
    defines["NUM_RADIAL"] = std::to_string(committee.radial());
    defines["NUM_MEANS"] = std::to_string(committee.eta_mean.size());
    defines["NUM_ANGLES"] = std::to_string(committee.zeta.size());
    defines["MOST_FUNCTIONS"] = std::to_string(std::max(committee.radial(), committee.angular()));
    defines["FUNCTIONS"] = std::to_string(functions);
    defines["MEMBERS"] = std::to_string(committee.members);
}

// Where the functions of the elements that are there stand among the inputs of a network.
std::vector<int> Packing::places_of_functions(const Committee& committee) const {
    const int all = static_cast<int>(committee.elements.size());
    std::vector<int> places;
    for (const int s : species)
        for (int k = 0; k < committee.radial(); ++k) places.push_back(s * committee.radial() + k);
    for (size_t i = 0; i < species.size(); ++i)
        for (size_t j = i; j < species.size(); ++j) {
            const int s = species[i], t = species[j], pair = s * all - s * (s - 1) / 2 + t - s;
            for (int k = 0; k < committee.angular(); ++k)
                places.push_back(all * committee.radial() + pair * committee.angular() + k);
        }
    return places;
}

void Packing::pack_networks(const Committee& committee) {
    const size_t depth = elements.empty() ? 0 : committee.networks[elements[0]].widths.size();
    for (const int e : elements)
        if (committee.networks[e].widths.size() != depth || depth < 2)
            throw OpenMMException("Expected networks with as many hidden layers for each element, at least one, on a "
                                  "GPU, but got others. Use the platform CPU.");
    const int hidden = static_cast<int>(depth) - 1;
    const size_t blocks = elements.size() * committee.members;
    size_t size = 0;
    int inputs = functions, before = 0;
    for (int k = 0; k < hidden; ++k) {
        int outputs = 0;
        for (const int e : elements) outputs = std::max(outputs, padded(committee.networks[e].widths[k]));
        const size_t matrix = blocks * inputs * outputs;
        layers.push_back({inputs, outputs, size, size + matrix, size + 2 * matrix});
        size += 2 * matrix + blocks * outputs;
        if (k + 1 < hidden) before += outputs;
        inputs = outputs;
    }
    weights.assign(size + 1, 0.0), last.assign(blocks * (inputs + 1), 0.0);
    const std::vector<int> places = places_of_functions(committee);
    for (size_t slot = 0; slot < elements.size(); ++slot) {
        for (int k = 0; k < hidden; ++k) widths.push_back(padded(committee.networks[elements[slot]].widths[k]));
        for (int m = 0; m < committee.members; ++m) pack_member(committee, static_cast<int>(slot), m, places);
    }
    defines["HIDDEN"] = std::to_string(hidden);
    defines["WIDTH_LAST"] = std::to_string(inputs), defines["LAST_BEFORE"] = std::to_string(before);
    defines["ALL_WIDTHS"] = std::to_string(before + inputs);
}

void Packing::pack_member(const Committee& committee, int slot, int member, const std::vector<int>& places) {
    const ElementWeights& networks = committee.networks[elements[slot]];
    const size_t block = static_cast<size_t>(slot) * committee.members + member;
    size_t inputs = committee.length_of_functions();
    for (size_t k = 0; k < layers.size(); ++k) {
        const PackedLayer& layer = layers[k];
        const size_t in = layer.inputs, out = layer.outputs, outputs = networks.widths[k];
        const size_t taken = k == 0 ? places.size() : inputs;
        const float* w = networks.weights[k].data() + member * outputs * inputs;
        double* there = weights.data() + layer.weights + block * in * out;
        double* back = weights.data() + layer.transposed + block * in * out;
        double* bias = weights.data() + layer.biases + block * out;
        for (size_t o = 0; o < outputs; ++o) {
            for (size_t i = 0; i < taken; ++i) {
                const double value = w[o * inputs + (k == 0 ? places[i] : i)];
                there[(i / 4 * out + o) * 4 + i % 4] = value, back[(o / 4 * in + i) * 4 + o % 4] = value;
            }
            bias[o] = networks.biases[k][member * outputs + o];
        }
        inputs = outputs;
    }
    const size_t width = layers.back().outputs;
    double* end = last.data() + block * (width + 1);
    for (size_t i = 0; i < inputs; ++i) end[i] = networks.weights[layers.size()][member * inputs + i];
    end[width] = networks.biases[layers.size()][member];
}

std::vector<double> Packing::row_weights(const ANIForce& force) const {
    const Atoms atoms(force);
    std::vector<double> weights(centres.size());
    for (size_t c = 0; c < atoms.centres.size(); ++c)
        weights[row_of_centre[c]] =
            atoms.weight[atoms.centres[c]] * force.committee->energy / force.committee->members;
    return weights;
}

}  // namespace mlmm
