#include "device_ani.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "centres.h"
#include "device_forces.h"
#include "device_neighbours.h"
#include "device_networks.h"
#include "device_rows.h"
#include "device_symmetry.h"

using namespace OpenMM;

namespace mlmm {

namespace {

constexpr int kSearchGroup = 128, kSearchChunk = 2048, kNetworkGroup = 256, kRowGroup = 512;
// Local memory, bytes: what every device of CUDA and HIP has, and of OpenCL.
constexpr int kLocalMemory = 49152, kLeastLocalMemory = 32768;
// Regions that leave most of a large device idle: small tiles, and more threads for each centre.
constexpr int kFewCentres = 64;
// Lists of neighbours with room for every atom take no more than this, bytes; longer ones grow where they must. There
// is more for rows that move, most of which are not there at any time. And what these take besides, some kilobytes.
constexpr size_t kWholeLists = 64u << 20, kMovingLists = 640u << 20, kMovingRows = 96u << 20;

}  // namespace

DeviceGroups::DeviceGroups(const ANIForce& force, bool opencl, int real_size) {
    const bool few = Atoms(force).centres.size() <= kFewCentres;
    local_memory = opencl ? kLeastLocalMemory : kLocalMemory;
    others = few && !opencl ? 512 : 256;
    // Widths of all layers, each as large as its largest, and shares of the sums of any of them.
    std::vector<int> most;
    int parts = 1;
    for (const ElementWeights& networks : force.committee->networks)
        for (size_t k = 0; k + 1 < networks.widths.size(); ++k) {
            if (most.size() <= k) most.push_back(0);
            most[k] = std::max(most[k], (networks.widths[k] + 31) / 32 * 32);
        }
    const auto fits = [&](int numbers) { return numbers * real_size <= local_memory; };
    rows = few ? 4 : 8, tile_rows = 8, most_columns = few ? 1 : 5, tile_steps = few ? 4 : 2;
    other_columns = few ? 1 : 2, other_steps = few ? 4 : 2;
    const int widths = std::accumulate(most.begin(), most.end(), 0);
    for (const int width : most) parts = std::max(parts, parts_of(width));
    while (rows > 1 && !fits(rows * (widths + parts * 32 + 1))) rows /= 2;
    while (most_columns > 1 && !fits(kNetworkGroup * tile_rows * most_columns)) --most_columns;
    while (tile_rows > 1 && !fits(kNetworkGroup * tile_rows * most_columns)) tile_rows /= 2;
    this->force = 128, shares = 8;
}

int DeviceGroups::parts_of(int outputs) const {
    const int blocks = (outputs / 32 + other_columns - 1) / other_columns;
    return std::max(1, others / 32 / blocks) * (outputs / 32);
}

DeviceANI::DeviceANI(ComputeContext& cc, const ANIForce& force, const std::vector<int>& sides)
    : OnDevice(cc), groups(force, opencl, real_size()), packing(force, groups.rows, groups.tile_rows),
      n_atoms(force.size()), members(force.committee->members), moving(!sides.empty()) {
    rows = static_cast<int>(packing.centres.size());
    if (moving) {
        make_candidates(force, sides);
        rows = std::max<int>(1, std::min<size_t>(candidates.size(), kMovingRows / row_size()));
    }
    make_arrays();
}

void DeviceANI::make_candidates(const ANIForce& force, const std::vector<int>& sides) {
    const Atoms atoms(force);
    two_sides = *std::max_element(sides.begin(), sides.end()) > 1;
    for (auto& places : candidate_of) places.assign(n_atoms, -1);
    std::vector<int> atom_of_row(packing.centres.size()), start, slots;
    for (size_t c = 0; c < atoms.centres.size(); ++c) atom_of_row[packing.row_of_centre[c]] = atoms.centres[c];
    size_t row = 0;
    int slot = 0;
    const std::vector<int>& first = packing.species_start;
    for (size_t s = 0; s < first.size(); ++s) {
        start.push_back(n_candidates()), slots.push_back(slot);
        const int end = s + 1 < first.size() ? first[s + 1] : n_atoms;
        for (; row < packing.centres.size() && packing.centres[row] < end; ++row)
            for (const int side : {1, 2}) {
                if ((sides[atom_of_row[row]] & side) == 0) continue;
                candidate_of[side - 1][atom_of_row[row]] = n_candidates();
                candidates.push_back(packing.centres[row]), candidate_sides.push_back(side);
            }
        // Networks are there for elements with candidates.
        slot += n_candidates() > start.back();
    }
    start.push_back(n_candidates());
    for (const int atom : packing.order) atom_sides.push_back(sides[atom]);
    integers("candidates", candidates), integers("candidateSides", candidate_sides);
    integers("candidateStart", start), integers("slots", slots), integers("atomSides", atom_sides);
    integers("rowOf", std::vector<int>(candidates.size(), -1)), integers("rowCounts", {0, 0, 0});
    numbers("candidateWeights", std::vector<double>(candidates.size(), 0.0));
}

int DeviceANI::row_size() const {
    return real_size() * (packing.functions + members * (packing.functions + packing.most[0] + 1));
}

void DeviceANI::add(const std::string& source, const std::map<std::string, std::string>& defines) {
    more += source;
    more_defines.insert(defines.begin(), defines.end());
}

void DeviceANI::make_arrays() {
    Packing& p = packing;
    integers("particles", p.particles), integers("capParticles", p.cap_particles);
    integers("speciesStart", p.species_start), integers("widths", p.widths);
    // Whether an energy was no number; whether there was too little room.
    integers("status", {0, 0});
    numbers("capDistances", p.cap_distances, true), numbers("constants", p.constants);
    numbers("first", p.first), numbers("firstBack", p.first_back), numbers("firstBias", p.first_bias);
    numbers("others", p.others), numbers("last", p.last);
    array("capForces", 3 * p.cap_distances.size(), sizeof(long long))
        .upload(std::vector<long long>(std::max<size_t>(3 * p.cap_distances.size(), 1), 0));
    if (!moving) integers("centres", p.centres), integers("tiles", p.tiles), integers("largeTiles", p.large_tiles);
    make_row_arrays();
    // What is final is on the device.
    std::vector<double>().swap(p.first), std::vector<double>().swap(p.first_back), std::vector<double>().swap(p.others);
}

// All that has a place for each row; what is in it is lost.
void DeviceANI::make_row_arrays() {
    const size_t n = rows;
    const auto make = [&](const std::string& name, size_t size, int element_size) {
        if (has(name))
            at(name).resize(size);
        else
            array(name, size, element_size);
        cc.clearBuffer(at(name));
    };
    make("starts", 2 * n * (packing.species_start.size() + 1), sizeof(int)), make("wanted", 2 * n, sizeof(int));
    make("rowWeights", n, real_size()), make("poison", n, real_size());
    // Its padding stays zero.
    make("functions", n * packing.functions, real_size()), make("slopes", members * n * packing.functions, real_size());
    make("hidden", members * n * packing.most[0], real_size()), make("energies", members * n, real_size());
    if (moving) {
        make("centres", n, sizeof(int)), make("rowSides", n, sizeof(int));
        const size_t more = packing.species_start.size() + 1;
        make("tiles", 3 * (n / groups.rows + more), sizeof(int));
        make("largeTiles", 3 * (n / groups.tile_rows + more), sizeof(int));
    }
    // One place for every other atom, so that no list can be too short, as long as they are small.
    const int all = std::max(1, n_atoms - 1);
    const size_t entry = 2 * (6 * real_size() + sizeof(int));
    const bool fits = n * all * entry <= (moving ? kMovingLists : kWholeLists);
    whole = fits && (!moving || rows == n_candidates());
    make_lists("radial", radial_room, fits ? all : std::min(all, std::max(128, radial_room)));
    make_lists("angular", angular_room, fits ? all : std::min(all, std::max(64, angular_room)));
}

void DeviceANI::make_lists(const std::string& name, int& room, int wanted) {
    room = wanted;
    const size_t size = static_cast<size_t>(rows) * room;
    if (has(name)) {
        for (const char* kind : {"", "Cut", "Atom"}) at(name + kind).resize(size);
        return;
    }
    array(name, size, 4 * real_size()), array(name + "Cut", size, 2 * real_size());
    array(name + "Atom", size, sizeof(int));
}

// Blocks of 32 columns of a matrix that a warp takes: as many as it may, of those that leave least idle.
int DeviceANI::columns_of(int width) const {
    int best = 1;
    const auto all = [&](int columns) { return (width / 32 + columns - 1) / columns * columns; };
    for (int columns = 2; columns <= groups.most_columns; ++columns)
        if (all(columns) <= all(best)) best = columns;
    return best;
}

void DeviceANI::compile_all() {
    std::map<std::string, std::string> defines = packing.defines;
    defines.insert(more_defines.begin(), more_defines.end());
    const int most_functions = std::stoi(defines["MOST_FUNCTIONS"]);
    int group = 128;
    while (group > 32 && group * (most_functions + 1) * real_size() > groups.local_memory) group /= 2;
    symmetry_group = group, pair_blocks = std::stoi(defines["NUM_BLOCKS"]);
    int parts = 1;
    for (const int width : packing.most) parts = std::max(parts, groups.parts_of(width));
    row_group = std::min(kRowGroup, cc.getMaxThreadBlockSize());
    while (row_group & (row_group - 1)) row_group &= row_group - 1;
    defines["SEARCH_GROUP"] = std::to_string(kSearchGroup), defines["SYMMETRY_GROUP"] = std::to_string(group);
    const int whole_groups = (n_atoms + kSearchGroup - 1) / kSearchGroup * kSearchGroup;
    defines["SEARCH_CHUNK"] = std::to_string(std::min(kSearchChunk, whole_groups));
    defines["FORCE_GROUP"] = std::to_string(groups.force), defines["FORCE_SHARES"] = std::to_string(groups.shares);
    defines["NETWORK_GROUP"] = std::to_string(kNetworkGroup), defines["OTHERS_GROUP"] = std::to_string(groups.others);
    defines["MOST_PARTS"] = std::to_string(parts), defines["OTHER_STEPS"] = std::to_string(groups.other_steps);
    defines["OTHER_COLUMNS"] = std::to_string(groups.other_columns);
    defines["TILE_STEPS"] = std::to_string(groups.tile_steps);
    first_columns = columns_of(packing.most[0]), back_columns = columns_of(packing.functions);
    defines["FIRST_COLUMNS"] = std::to_string(first_columns), defines["BACK_COLUMNS"] = std::to_string(back_columns);
    defines["MOST_COLUMNS"] = std::to_string(std::max(first_columns, back_columns));
    defines["PADDED_NUM_ATOMS"] = std::to_string(cc.getPaddedNumAtoms());
    std::string source = std::string(kDeviceRowCounts) + kDeviceNeighbours;
    if (moving) {
        defines["MOVING_ROWS"] = "1", defines["NUM_CANDIDATES"] = std::to_string(candidates.size());
        defines["NUM_CENTRES"] = std::to_string(rows), defines["ROW_GROUP"] = std::to_string(row_group);
        if (two_sides) defines["TWO_SIDES"] = "1";
        source += kDeviceRows;
    }
    compile(source + kDeviceSymmetry + kDeviceNetworks + kDeviceForces + more, defines);
}

void DeviceANI::make_kernels() {
    const std::vector<std::string> counts(moving ? 1 : 0, "rowCounts");
    const auto with_counts = [&](std::vector<std::string> names) {
        names.insert(names.end(), counts.begin(), counts.end());
        return names;
    };
    std::vector<std::string> searched = with_counts(
        {"posq", "correction", "particles", "capParticles", "capDistances", "centres", "speciesStart", "radial",
         "radialCut", "radialAtom", "angular", "angularCut", "angularAtom", "starts", "poison", "wanted", "status"});
    if (two_sides) searched.insert(searched.end(), {"atomSides", "rowSides"});
    if (moving)
        choose = kernel("makeRows", 0, {"candidates", "candidateSides", "candidateStart", "slots", "candidateWeights",
                                        "centres", "rowSides", "rowWeights", "rowOf", "tiles", "largeTiles",
                                        "rowCounts", "status"});
    find = kernel("findNeighbours", 6, searched);
    describe = kernel("symmetryFunctions", 2,
                      with_counts({"radial", "radialCut", "angular", "angularCut", "starts", "poison", "constants",
                                   "functions"}));
    first = kernel("firstLayer", 0, with_counts({"largeTiles", "widths", "first", "firstBias", "functions", "hidden"}));
    others = kernel("otherLayers", 2, with_counts({"tiles", "others", "last", "rowWeights", "hidden", "energies",
                                                   "status", "energyBuffer"}));
    back = kernel("firstLayerBack", 0, with_counts({"largeTiles", "widths", "firstBack", "hidden", "slopes"}));
    push = kernel("addForces", 2,
                  with_counts({"radial", "radialCut", "radialAtom", "angular", "angularCut", "angularAtom", "starts",
                               "constants", "slopes", "particles", "centres", "capForces", "forces"}));
    if (!packing.cap_distances.empty())
        spread = kernel("spreadCapForces", 3,
                        {"posq", "correction", "capParticles", "capDistances", "capForces", "forces"});
}

bool DeviceANI::prepare() {
    if (compiled && find) return false;
    if (!compiled) compile_all();
    compiled = true;
    make_kernels();
    return true;
}

void DeviceANI::launch(bool forces, bool energy) {
    if (moving) choose->execute(row_group, row_group);
    set_box(find);
    find->setArg(3, radial_room), find->setArg(4, angular_room);
    set_real(find, 5, std::nan(""));
    find->execute(rows * kSearchGroup, kSearchGroup);
    if (!whole) {
        // Read while the networks run.
        if (!event) event = cc.createEvent();
        at("status").download(cc.getPinnedBuffer(), false);
        event->enqueue();
    }
    for (ComputeKernel* k : {&describe, &push}) (*k)->setArg(0, radial_room), (*k)->setArg(1, angular_room);
    const auto count = [&](const char* tiles) { return static_cast<int>(at(tiles).getSize()) / 3 * members; };
    const auto blocks = [&](int width, int columns) {
        return count("largeTiles") * ((width + 32 * columns - 1) / (32 * columns)) * kNetworkGroup;
    };
    describe->execute((rows * pair_blocks + symmetry_group / 32 - 1) / (symmetry_group / 32) * symmetry_group,
                      symmetry_group);
    first->execute(blocks(packing.most[0], first_columns), kNetworkGroup);
    others->setArg(0, static_cast<int>(forces)), others->setArg(1, static_cast<int>(energy));
    others->execute(count("tiles") * groups.others, groups.others);
    if (!forces) return;
    back->execute(blocks(packing.functions, back_columns), kNetworkGroup);
    push->execute(rows * groups.force, groups.force);
    if (spread) {
        set_box(spread);
        spread->execute(static_cast<int>(packing.cap_distances.size()));
    }
}

bool DeviceANI::had_room() {
    if (whole) return true;
    event->wait();
    if (static_cast<const int*>(cc.getPinnedBuffer())[1] == 0) return true;
    grow();
    return false;
}

void DeviceANI::grow() {
    at("status").upload(std::vector<int>{0, 0});
    if (moving) {
        std::vector<double> weights;
        at("candidateWeights").download(weights, true);
        const int wanted = static_cast<int>(weights.size() - std::count(weights.begin(), weights.end(), 0.0));
        if (wanted > rows) {
            rows = std::min(n_candidates(), wanted + wanted / 4);
            make_row_arrays();
            compiled = false;
            return;
        }
    }
    std::vector<int> wanted;
    at("wanted").download(wanted);
    int most[2] = {0, 0};
    for (int i = 0; i < 2 * rows; ++i) most[i % 2] = std::max(most[i % 2], wanted[i]);
    const int all = std::max(1, n_atoms - 1);
    if (most[0] > radial_room) make_lists("radial", radial_room, std::min(all, most[0] + most[0] / 4));
    if (most[1] > angular_room) make_lists("angular", angular_room, std::min(all, most[1] + most[1] / 4));
}

bool DeviceANI::is_finite() {
    std::vector<int> status;
    at("status").download(status);
    if (status[0] != 0) at("status").upload(std::vector<int>{0, 0});
    return status[0] == 0;
}

}  // namespace mlmm
