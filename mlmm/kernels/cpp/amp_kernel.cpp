// AMP-BMS on the processor behind a plain C interface; loaded by mlmm/potentials/amp_bms/native.py.
//
// Models live in a registry under a number that is made from their content; an evaluation is kept between the
// outputs and their gradient. Functions return 0 when they did what they were asked, else a code, and never
// throw.

#include <memory>
#include <mutex>
#include <unordered_map>

#include "amp_network.h"
#include "export.h"
#include "idle.h"

namespace {

using namespace mlmm;

constexpr int kUnknownModel = 1, kNoMemory = 2, kOutOfRange = 3, kBadShape = 4;
// Beyond it an image cannot be told in double precision.
constexpr double kLargest = 1e12;

struct AMPEntry {
    std::shared_ptr<const AMPModel<float>> single;
    std::shared_ptr<const AMPModel<double>> twofold;
    int64_t rows = 0;
};

struct AMPRegistry {
    std::mutex mutex;
    std::unordered_map<int64_t, AMPEntry> models;

    AMPEntry find(int64_t id) {
        std::lock_guard<std::mutex> lock(mutex);
        const auto place = models.find(id);
        return place == models.end() ? AMPEntry{} : place->second;
    }
};

// Never destroyed: threads of the host may still evaluate while the process ends.
AMPRegistry& amp_registry() {
    static AMPRegistry* const instance = new AMPRegistry;
    return *instance;
}

struct HeldAMP {
    AMPEntry model;
    std::unique_ptr<AMPEvaluation<float>> single;
    std::unique_ptr<AMPEvaluation<double>> twofold;
    int64_t n = 0, m = 0;
    bool broken = false;
};

bool all_usable(const double* x, int64_t n) {
    int64_t broken = 0;
    for (int64_t i = 0; i < n; ++i) broken += !(std::fabs(x[i]) <= kLargest);
    return broken == 0;
}

template <class T>
std::shared_ptr<const AMPModel<T>> new_amp(int64_t rows, const double* values,
                                           const std::vector<std::vector<AffineMap>>& maps) {
    auto model = std::make_shared<AMPModel<T>>();
    model->elements.assign(values, values + rows * kNodes);
    values += rows * kNodes;
    std::copy(values, values + kRadial, model->frequency);
    values += kRadial;
    model->cutoff = *values++;
    PolarisationNetwork& p = model->polarisation;
    for (double& x : p.frequency) x = *values++;
    for (auto& row : p.hidden)
        for (double& x : row) x = *values++;
    for (double& x : p.bias) x = *values++;
    for (auto& row : p.out)
        for (double& x : row) x = *values++;
    p.cutoff = *values++, p.scaling = *values++;
    model->take(maps);
    return model;
}

}  // namespace

// 1 if there is a model of this number.
EXPORT int mlmm_amp_has(int64_t id) { return amp_registry().find(id).rows > 0; }

// Registers a model. shapes: rows of the table of elements; then for each part (see AMPPart) the number of
// layers and of each layer outputs, inputs and 1 if it has a bias. values: the table, frequencies and cutoff of
// edges, those of the polarisation with its layers and scaling; then weights and bias, layer by layer.
EXPORT int mlmm_amp_new(int64_t id, int twofold, const int64_t* shapes, const double* values) try {
    const int64_t rows = *shapes++;
    const double* next = values + rows * kNodes + kRadial + 1 + 14;
    std::vector<std::vector<AffineMap>> maps(kParts);
    for (auto& part : maps) {
        part.resize(static_cast<size_t>(*shapes++));
        for (AffineMap& map : part) {
            map.outputs = static_cast<int>(*shapes++), map.inputs = static_cast<int>(*shapes++);
            map.weights = next, next += static_cast<ptrdiff_t>(map.outputs) * map.inputs;
            if (*shapes++) map.bias = next, next += map.outputs;
        }
    }
    const int edge_inputs[] = {kRadial, kEdgeSize, kFirst + kEdgeSize, kFirst + kEdgeSize, kSecond + kEdgeSize};
    for (int k = 0; k < 5; ++k)
        if (maps[k].empty() || maps[k][0].inputs != 2 * kNodes + edge_inputs[k]) return kBadShape;
    if (maps[kUpdate0][0].inputs != 2 * kNodes || maps[kUpdate1].back().outputs != kNodes) return kBadShape;
    AMPEntry entry;
    entry.rows = rows;
    if (twofold)
        entry.twofold = new_amp<double>(rows, values, maps);
    else
        entry.single = new_amp<float>(rows, values, maps);
    std::lock_guard<std::mutex> lock(amp_registry().mutex);
    amp_registry().models[id] = entry;
    return 0;
} catch (...) {
    return kNoMemory;
}

// Outputs (n, 15) of atoms among charges at sources (m, 3), in angstrom; cell: reduced vectors in rows, or null.
EXPORT int mlmm_amp_forward(int64_t id, int64_t n, const double* positions, const int64_t* species, int64_t m,
                            const double* sources, const double* charges, double width, const double* cell,
                            double* outputs, void** held) try {
    auto own = std::make_unique<HeldAMP>();
    own->model = amp_registry().find(id);
    own->n = n, own->m = m;
    if (own->model.rows == 0) return kUnknownModel;
    for (int64_t i = 0; i < n; ++i)
        if (species[i] < 0 || species[i] >= own->model.rows) return kOutOfRange;
    own->broken = !all_usable(positions, 3 * n) || !all_usable(sources, 3 * m) || (cell && !all_usable(cell, 9));
    if (own->broken) {
        std::fill(outputs, outputs + kOutputs * n, std::nan(""));
        *held = own.release();
        return 0;
    }
    Box box;
    if (cell) {
        box.periodic = true, box.ax = cell[0], box.bx = cell[3], box.by = cell[4];
        box.cx = cell[6], box.cy = cell[7], box.cz = cell[8];
    }
    const int atoms = static_cast<int>(n);
    if (own->model.single) {
        own->single = idle<AMPEvaluation<float>>().borrow();
        own->single->forward(*own->model.single, atoms, positions, species, box, m, sources, charges, width, outputs);
    } else {
        own->twofold = idle<AMPEvaluation<double>>().borrow();
        own->twofold->forward(*own->model.twofold, atoms, positions, species, box, m, sources, charges, width,
                              outputs);
    }
    *held = own.release();
    return 0;
} catch (...) {
    return kNoMemory;
}

// Adds to gradients of positions (n, 3) and sources (m, 3) for derivatives by the outputs (n, 15).
EXPORT int mlmm_amp_backward(void* held, const double* by_outputs, double* by_positions, double* by_sources) try {
    HeldAMP& own = *static_cast<HeldAMP*>(held);
    if (own.broken) {
        std::fill(by_positions, by_positions + 3 * own.n, std::nan(""));
        std::fill(by_sources, by_sources + 3 * own.m, std::nan(""));
    } else if (own.single) {
        own.single->backward(*own.model.single, by_outputs, by_positions, by_sources);
    } else {
        own.twofold->backward(*own.model.twofold, by_outputs, by_positions, by_sources);
    }
    return 0;
} catch (...) {
    return kNoMemory;
}

EXPORT void mlmm_amp_release(void* held) {
    std::unique_ptr<HeldAMP> own(static_cast<HeldAMP*>(held));
    try {
        if (own->single) idle<AMPEvaluation<float>>().give_back(std::move(own->single));
        if (own->twofold) idle<AMPEvaluation<double>>().give_back(std::move(own->twofold));
    } catch (...) {
        // Only the work space is lost.
    }
}
