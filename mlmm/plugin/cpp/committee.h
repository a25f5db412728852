// A committee of ANI networks as plain numbers: what defines the energies, shared by copies of a force.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mlmm {

// Networks of one element: widths of the layers, the last of them 1; for each layer the weights (members,
// outputs, inputs) and biases (members, outputs).
struct ElementWeights {
    std::vector<int> widths;
    std::vector<std::vector<float>> weights, biases;

    bool empty() const { return widths.empty(); }
};

// Lengths in angstrom, energies in hartree; equations 3 and 4 of doi 10.1039/C6SC05720A.
struct Committee {
    std::vector<std::string> elements;             // in the order of the symmetry functions
    std::vector<ElementWeights> networks;          // of each element; empty where no centre is one
    int members = 0;
    double radial_cutoff = 0, angular_cutoff = 0;  // angstrom
    double length = 10, energy = 1;                // angstrom in 1 nm, kJ/mol in 1 hartree
    std::vector<double> eta_radial, shift_radial;  // one entry for each radial function
    std::vector<double> eta_mean, shift_mean;      // factors of an angular function: by mean distance …
    std::vector<double> zeta, angle;               // … and by angle

    int find(const std::string& symbol) const;
    int radial() const { return static_cast<int>(eta_radial.size()); }
    int angular() const { return static_cast<int>(eta_mean.size() * zeta.size()); }
    // Length of the symmetry functions of an atom, the inputs of its network.
    int length_of_functions() const;
    // Throws an OpenMMException that names what is wrong.
    void check() const;
    // 63 bits of a hash of everything above.
    int64_t number() const;
};

// The committee of the same content that is there already, or this one: copies of a System share weights.
std::shared_ptr<const Committee> shared(std::shared_ptr<const Committee> committee);

}  // namespace mlmm
