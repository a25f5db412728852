// Which atoms and molecules of an adaptive zone a GPU platform may let change places in its arrays.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "arrays.h"
#include "on_device.h"

namespace mlmm {

// Molecules of one kind, with like atoms and terms of their own; none that has a term or special pair with others.
inline AtomKinds like_molecules(const Arrays& arrays) {
    const int n = arrays.n_particles(), most = 1 << 30;
    const std::vector<int>&start = arrays.integers("molecule_start", 1, 0, most),
                     &atoms = arrays.particles("molecule_atoms"), &seen = arrays.particles("seen"),
                     &element = arrays.integers("elements", 1, 0, most),
                     &kind = arrays.integers("kinds", 1, 0, most);
    const std::vector<double>&parameters = arrays.numbers("parameters", 3 * n),
                        &anchors = arrays.numbers("anchors", atoms.size());
    // What tells two atoms, or two molecules, apart.
    std::vector<std::vector<double>> of_atoms(n), of_molecules(kind.size());
    std::vector<char> unique(n, 0);
    std::vector<int> place(n, 0), owner(n, -1);
    for (int i = 0; i < n; ++i) of_atoms[i].assign(&parameters[3 * i], &parameters[3 * i] + 3);
    for (size_t k = 0; k < seen.size(); ++k) of_atoms[seen[k]].push_back(element[k]);
    for (const int atom : arrays.particles("owned")) of_atoms[atom].push_back(-1.0);
    for (const char* name : {"core", "centres"})
        for (const int atom : arrays.particles(name)) unique[atom] = 1;
    for (size_t m = 0; m < kind.size(); ++m) {
        of_molecules[m].push_back(kind[m]);
        for (int i = start[m]; i < start[m + 1]; ++i) {
            owner[atoms[i]] = static_cast<int>(m), place[atoms[i]] = i - start[m];
            for (const double part : {-2.0, 1.0 * kind[m], 1.0 * (i - start[m]), anchors[i]})
                of_atoms[atoms[i]].push_back(part);
        }
    }
    const auto add = [&](const std::string& name, size_t width, size_t each) {
        const std::vector<int>&own = arrays.particles(name + "_atoms", width),
                         &wraps = arrays.integers(name + "_wraps", 1, 0, 1);
        const std::vector<double>& values = arrays.numbers(name + "_numbers", wraps.size() * each);
        for (size_t t = 0; t < wraps.size(); ++t) {
            const int* i = &own[width * t];
            const int m = owner[*i];
            // Which of several maps a CMAP term takes is not looked at.
            bool inside = m >= 0 && width < 8;
            for (size_t k = 0; k < width; ++k) inside &= owner[i[k]] == m;
            if (!inside) {
                for (size_t k = 0; k < width; ++k) unique[i[k]] = 1;
                continue;
            }
            std::vector<double>& found = of_molecules[m];
            found.insert(found.end(), {1.0 * width, 1.0 * wraps[t]});
            for (size_t k = 0; k < width; ++k) found.push_back(place[i[k]]);
            found.insert(found.end(), &values[each * t], &values[each * t] + each);
        }
    };
    add("bond", 2, 2), add("pair", 2, 3), add("angle", 3, 2), add("torsion", 4, 3), add("rb", 4, 6), add("cmap", 8, 8);
    const std::vector<int>&first = arrays.integers("special_start", 1, 0, most),
                     &other = arrays.integers("special_other", 1, 0, most);
    for (int i = 0; i < n; ++i)
        for (int s = first[i]; s < first[i + 1]; ++s) {
            const int j = other[s];
            // Of two atoms that never have a weight the pair is OpenMM's.
            if (owner[i] < 0 && owner[j] < 0 && !unique[i] && !unique[j]) continue;
            if (owner[i] < 0 || owner[j] != owner[i])
                unique[i] = 1;
            else
                for (const double part : {-1.0, 1.0 * place[i], 1.0 * place[j]}) of_molecules[owner[i]].push_back(part);
        }
    AtomKinds result;
    std::map<std::vector<double>, int> atom_kinds, molecule_kinds;
    const auto number_of = [](std::map<std::vector<double>, int>& known, const std::vector<double>& value) {
        return -known.emplace(value, static_cast<int>(known.size())).first->second;
    };
    for (int i = 0; i < n; ++i) result.kinds.push_back(unique[i] ? 1 : number_of(atom_kinds, of_atoms[i]));
    for (size_t m = 0; m < kind.size(); ++m) {
        result.groups.emplace_back(atoms.begin() + start[m], atoms.begin() + start[m + 1]);
        result.group_kinds.push_back(number_of(molecule_kinds, of_molecules[m]));
    }
    return result;
}

}  // namespace mlmm
