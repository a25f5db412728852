#include "device_ani.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "centres.h"
#include "device_cells.h"
#include "device_forces.h"
#include "device_neighbours.h"
#include "device_networks.h"
#include "device_rows.h"
#include "device_symmetry.h"
#include "device_tensor_cores.h"

using namespace OpenMM;

namespace mlmm {

namespace {

// Threads of a group: of those for the forces of one centre so many for each neighbour; for what is one group.
constexpr int kForceShares = 8, kSingleGroup = 512;
// Atoms near one centre that a group has places for.
constexpr int kMostNear = 1024;
// With no more atoms in all each is looked at for every centre, which takes less than to sort them into cells; those
// are a little longer than the cutoff.
constexpr int kMostSearched = 4096;
constexpr double kCellEdge = 1.002;
// Local memory of a group, bytes: every device of CUDA and HIP has it, and all but small ones of OpenCL.
constexpr int kLocalMemory = 49152;
// Regions that leave most of a large device idle: small tiles and one queue; and those that have more threads for each
// centre.
constexpr int kFewCentres = 64, kSomeCentres = 1024;
// Rows of a tile for tensor cores. They have been on no device yet, so that whoever wants them has to ask for them.
constexpr int kTensorRows = 16;
// Lists of neighbours with room for every atom take no more than this, bytes; longer ones grow where they must. There
// is more for rows that move, most of which are not there at any time. And what these take besides, some kilobytes.
constexpr size_t kWholeLists = 64u << 20, kMovingLists = 640u << 20, kMovingRows = 96u << 20;

bool asked_for(const char* variable) {
    const char* value = std::getenv(variable);
    return value && *value && std::strcmp(value, "0") != 0;
}

}  // namespace

DeviceANI::DeviceANI(ComputeContext& cc, const ANIForce& force, const std::vector<int>& sides)
    : OnDevice(cc), packing(force), n_atoms(force.size()), members(force.committee->members),
      few(packing.centres.size() <= kFewCentres), moving(!sides.empty()),
      plan(packing.layers, few, most_threads(), kLocalMemory, real_size()),
      tensor_cores(cuda && !twofold && plan.rows == kTensorRows && asked_for("MLMM_TENSOR_CORES")) {
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
    integers("rowOf", std::vector<int>(candidates.size(), -1)), integers("rowCounts", {0, 0});
    numbers("candidateWeights", std::vector<double>(candidates.size(), 0.0));
}

// PoCL 3.1 computes wrong forces with larger groups, where Intel's driver and Oclgrind do not.
int DeviceANI::most_threads() { return opencl ? 256 : cc.getMaxThreadBlockSize(); }

int DeviceANI::row_size() const {
    return real_size() * (packing.functions + members * (packing.functions + 1));
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
    numbers("matrices", p.weights), numbers("last", p.last);
    if (!moving) integers("centres", p.centres), integers("tiles", p.tiles(plan.rows));
    if (n_atoms > kMostSearched) {
        // No more than two for each atom, however large the box.
        cells_along = static_cast<int>(std::ceil(std::cbrt(2.0 * n_atoms)));
        const size_t cells = static_cast<size_t>(cells_along) * cells_along * cells_along;
        array("cellStart", cells + 1, sizeof(int)), array("cellNext", cells, sizeof(int));
        array("cellOfAtom", n_atoms, sizeof(int)), array("cellPlaces", n_atoms, 4 * real_size());
        array("cellAtoms", n_atoms, sizeof(int)), integers("cellsBroken", {0});
    }
    make_row_arrays();
    // What is final is on the device.
    std::vector<double>().swap(p.weights);
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
    make("rowWeights", n, real_size()), make("energies", members * n, real_size());
    // Its padding stays zero; a tile that is not full reads beyond its rows.
    make("functions", (n + plan.rows) * packing.functions, real_size());
    make("slopes", members * n * packing.functions, real_size());
    if (moving) {
        make("centres", n, sizeof(int)), make("rowSides", n, sizeof(int));
        make("tiles", 3 * (n / plan.rows + packing.species_start.size() + 1), sizeof(int));
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

void DeviceANI::compile_all() {
    std::map<std::string, std::string> defines = packing.defines;
    for (const auto& made : {plan.defines(), more_defines}) defines.insert(made.begin(), made.end());
    const int most_functions = std::stoi(defines["MOST_FUNCTIONS"]);
    const int most_near = std::min(n_atoms, kMostNear);
    const auto fits = [&](int group) {
        return group * (most_functions + 1) * real_size() +
                   (3 * most_near + 2) * static_cast<int>(sizeof(int)) <= kLocalMemory;
    };
    const bool some = rows <= kSomeCentres && most_threads() > 256;
    describe_group = some ? 256 : 128;
    while (describe_group > 32 && !fits(describe_group)) describe_group /= 2;
    force_group = some && !few ? 256 : 128;
    row_group = std::min(kSingleGroup, cc.getMaxThreadBlockSize());
    while (row_group & (row_group - 1)) row_group &= row_group - 1;
    const std::pair<const char*, int> given[] = {{"DESCRIBE_GROUP", describe_group},
                                                 {"MOST_NEAR", most_near},
                                                 {"CELLS_ALONG", cells_along},
                                                 {"CELL_GROUP", row_group},
                                                 {"FORCE_GROUP", force_group},
                                                 {"FORCE_SHARES", kForceShares},
                                                 {"NUM_TILES", static_cast<int>(at("tiles").getSize()) / 3},
                                                 {"PADDED_NUM_ATOMS", cc.getPaddedNumAtoms()}};
    for (const auto& [name, number] : given) defines[name] = std::to_string(number);
    defines["CELL_EDGE"] = "(NUMBER(" + std::to_string(kCellEdge) + ")*RADIAL_CUTOFF/LENGTH)";
    std::string source = std::string(kDeviceRowCounts) + kDeviceNeighbours;
    if (cells_along > 0) source += kDeviceCells;
    if (moving) {
        defines["MOVING_ROWS"] = "1", defines["NUM_CANDIDATES"] = std::to_string(candidates.size());
        defines["NUM_CENTRES"] = std::to_string(rows), defines["ROW_GROUP"] = std::to_string(row_group);
        if (two_sides) defines["TWO_SIDES"] = "1";
        source += kDeviceRows;
    }
    const std::string layers = std::string(kDeviceTiles) + kDeviceTensorCores + kDeviceLayerOfFunctions +
                               kDeviceLayer + kDeviceLayerOfRows + kDeviceLayer + kDeviceNetworks;
    if (tensor_cores) {
        compile(std::string(kDeviceRowCounts) + kDeviceNeighbours + layers, defines);
        plainly = evaluation();
        defines["USE_TENSOR_CORES"] = "1";
    }
    compile(source + kDeviceSearch + kDeviceSymmetry + layers + kDeviceForces + more, defines);
}

void DeviceANI::make_kernels() {
    std::vector<std::string> rows_and_cells(moving ? 1 : 0, "rowCounts");
    const std::vector<std::string> counts = rows_and_cells;
    const auto joined = [](std::vector<std::string> names, const std::vector<std::string>& more) {
        names.insert(names.end(), more.begin(), more.end());
        return names;
    };
    if (moving)
        choose = kernel("makeRows", 0, {"candidates", "candidateSides", "candidateStart", "slots", "candidateWeights",
                                        "centres", "rowSides", "rowWeights", "rowOf", "tiles", "rowCounts", "status"});
    if (cells_along > 0) {
        sort = kernel("sortIntoCells", 3, {"posq", "correction", "particles", "capParticles", "capDistances",
                                           "cellStart", "cellNext", "cellOfAtom", "cellPlaces", "cellAtoms",
                                           "cellsBroken"});
        rows_and_cells = joined(rows_and_cells, {"cellStart", "cellPlaces", "cellAtoms", "cellsBroken"});
    }
    if (two_sides) rows_and_cells = joined(rows_and_cells, {"atomSides", "rowSides"});
    describe = kernel("describeAtoms", 5,
                      joined({"posq", "correction", "particles", "capParticles", "capDistances", "centres",
                              "speciesStart", "radial", "radialCut", "radialAtom", "angular", "angularCut",
                              "angularAtom", "starts", "wanted", "status", "constants", "functions"},
                             rows_and_cells));
    evaluate = evaluation();
    push = kernel("addForces", 5,
                  joined({"posq", "correction", "capParticles", "capDistances", "radial", "radialCut", "radialAtom",
                          "angular", "angularCut", "angularAtom", "starts", "constants", "slopes", "particles",
                          "centres", "forces"},
                         counts));
}

bool DeviceANI::prepare() {
    if (compiled && describe) return false;
    if (!compiled) compile_all();
    compiled = true;
    make_kernels();
    return true;
}

void DeviceANI::launch(bool forces, bool energy) {
    if (moving) choose->execute(row_group, row_group);
    if (sort) set_box(sort), sort->execute(row_group, row_group);
    set_box(describe), set_box(push);
    for (ComputeKernel* k : {&describe, &push}) (*k)->setArg(3, radial_room), (*k)->setArg(4, angular_room);
    describe->execute(rows * describe_group, describe_group);
    if (!whole) {
        // Read while the networks run.
        if (!event) event = cc.createEvent();
        at("status").download(cc.getPinnedBuffer(), false);
        event->enqueue();
    }
    if (plainly) compare_evaluations();
    run_networks(plainly ? plainly : evaluate, forces, energy);
}

void DeviceANI::push_forces() { push->execute(rows * force_group, force_group); }

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
