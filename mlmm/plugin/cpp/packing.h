// Atoms and weights as the device code of device_*.h reads them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ani_force.h"

namespace mlmm {

// A hidden layer: padded widths, and where its weights, the transposed ones and its biases begin.
struct PackedLayer {
    int inputs, outputs;
    size_t weights, transposed, biases;
};

struct Packing {
    explicit Packing(const ANIForce& force);

    // Atoms of the force (particles and then caps) sorted by element; a cap k has the particle -1-k.
    std::vector<int> order, particles, cap_particles;
    std::vector<double> cap_distances;
    std::vector<int> centres, species_start;
    // Where each centre of the force (particles and then caps) stands among the rows.
    std::vector<int> row_of_centre;
    std::vector<double> constants;
    // Padded widths of the hidden layers, (elements, layers).
    std::vector<int> widths;
    std::vector<PackedLayer> layers;
    // Of each layer (elements, members, quarters of the inputs, outputs, 4), transposed alike, and biases; of the last,
    // with one output, weights and bias.
    std::vector<double> weights, last;
    // What the source is compiled with.
    std::map<std::string, std::string> defines;
    int functions = 0;

    // Up to `most` rows of one element; of each tile: element, first row, number of rows.
    std::vector<int> tiles(int most) const;
    // lambda times the kJ/mol of a hartree over the members, by row.
    std::vector<double> row_weights(const ANIForce& force) const;

   private:
    void pack_atoms(const ANIForce& force);
    void pack_constants(const Committee& committee);
    void pack_networks(const Committee& committee);
    void pack_member(const Committee& committee, int slot, int member, const std::vector<int>& places);
    std::vector<int> places_of_functions(const Committee& committee) const;

    std::vector<int> species, elements;  // elements: of centres
    std::vector<int> element_of_row;     // place among them
};

}  // namespace mlmm
