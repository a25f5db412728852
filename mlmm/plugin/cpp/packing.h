// Atoms and weights as the device code of device_*.h reads them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ani_force.h"

namespace mlmm {

struct Packing {
    // rows: most of a tile and of a large one.
    Packing(const ANIForce& force, int rows, int large_rows);

    // Atoms of the force (particles and then caps) sorted by element; a cap k has the particle -1-k.
    std::vector<int> order, particles, cap_particles;
    std::vector<double> cap_distances;
    std::vector<int> centres, species_start;
    // Where each centre of the force (particles and then caps) stands among the rows.
    std::vector<int> row_of_centre;
    // Of each tile: element, first row, number of rows.
    std::vector<int> tiles, large_tiles;
    std::vector<double> constants;
    // Padded widths of the hidden layers, (elements, layers), and the largest of each.
    std::vector<int> widths, most;
    // (elements, members, inputs, outputs) and transposed; the same of the other layers one after the other.
    std::vector<double> first, first_back, first_bias, others, last;
    // Of each layer from the second on: inputs, outputs, places of weights, transposed weights and biases.
    std::vector<int> layers;
    // What the source is compiled with.
    std::map<std::string, std::string> defines;
    int functions = 0;

    // lambda times the kJ/mol of a hartree over the members, by row.
    std::vector<double> row_weights(const ANIForce& force) const;

   private:
    void pack_atoms(const ANIForce& force);
    void pack_tiles(std::vector<int>& list, int most) const;
    void pack_constants(const Committee& committee);
    void pack_networks(const Committee& committee);
    std::vector<int> places_of_functions(const Committee& committee) const;

    std::vector<int> species, elements;  // elements: of centres
    std::vector<int> element_of_row;     // place among them
};

}  // namespace mlmm
