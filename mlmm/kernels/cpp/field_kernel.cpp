// Field-aware ANI on the processor behind a plain C interface; loaded by mlmm/potentials/field_ani/native.py.
//
// As ani_kernel.cpp: models live in a registry under a number that is made from their content, an evaluation is
// kept between the outputs and their gradient, functions return 0 or a code and never throw.

#include <unordered_map>

#include "export.h"
#include "field_model.h"
#include "idle.h"
#include "symmetry_gradient.h"

namespace {

using namespace mlmm;

constexpr int kUnknownModel = 1, kMissingElement = 2, kOutOfRange = 3, kNoMemory = 4, kBadShape = 5;

struct FieldEntry {
    std::shared_ptr<FieldModel<float>> single;
    std::shared_ptr<FieldModel<double>> twofold;

    bool known() const { return single || twofold; }
    const Functions& functions() const { return single ? single->functions() : twofold->functions(); }
    bool has(int element) const { return single ? single->has(element) : twofold->has(element); }
};

struct FieldRegistry {
    std::mutex mutex;
    std::unordered_map<int64_t, FieldEntry> models;

    FieldEntry find(int64_t id) {
        std::lock_guard<std::mutex> lock(mutex);
        const auto place = models.find(id);
        return place == models.end() ? FieldEntry{} : place->second;
    }
};

// Never destroyed: threads of the host may still evaluate while the process ends.
FieldRegistry& field_registry() {
    static FieldRegistry* const instance = new FieldRegistry;
    return *instance;
}

struct HeldField {
    FieldEntry model;
    std::unique_ptr<FieldEvaluation<float>> single;
    std::unique_ptr<FieldEvaluation<double>> twofold;
};

struct Layers {
    std::vector<int> widths;
    std::vector<const double*> weights, biases;

    Layers(int n, const int64_t* w, const double* const* all, const double* const* shifts)
        : widths(w, w + n), weights(all, all + n), biases(shifts, shifts + n) {}
};

template <class T>
void add_networks(FieldModel<T>& model, int element, const Layers& energy, const Layers& field,
                  const double* constants) {
    const Functions& f = model.functions();
    model.put(element,
              std::make_shared<const ElementNetworks<T>>(f, 1, energy.widths, energy.weights, energy.biases),
              std::make_shared<const FieldNetwork<T>>(f, field.widths, field.weights, field.biases), constants);
}

}  // namespace

// Registers a model without networks; one that is there already stays. sizes, constants: as mlmm_ani_new, one
// member. units: kJ/mol of an electronegativity, Coulomb's constant in kJ/mol angstrom, angstrom in nm.
EXPORT int mlmm_field_new(int64_t id, int twofold, const int64_t* sizes, const double* constants,
                          const double* units) try {
    std::lock_guard<std::mutex> lock(field_registry().mutex);
    if (field_registry().models.count(id)) return 0;
    double length, energy;
    const Functions f = read_functions(sizes, constants, length, energy);
    FieldEntry entry;
    if (twofold)
        entry.twofold = std::make_shared<FieldModel<double>>(f, length, energy, units[0], units[1], units[2]);
    else
        entry.single = std::make_shared<FieldModel<float>>(f, length, energy, units[0], units[1], units[2]);
    field_registry().models[id] = entry;
    return 0;
} catch (...) {
    return kNoMemory;
}

// 1 if the model has the networks of an element.
EXPORT int mlmm_field_has(int64_t id, int element) {
    const FieldEntry entry = field_registry().find(id);
    return entry.known() && entry.has(element);
}

// Gives the model both networks of an element, layer by layer as mlmm_ani_element, and its four constants.
EXPORT int mlmm_field_element(int64_t id, int element, int layers, const int64_t* widths,
                              const double* const* weights, const double* const* biases, int field_layers,
                              const int64_t* field_widths, const double* const* field_weights,
                              const double* const* field_biases, const double* constants) try {
    const FieldEntry entry = field_registry().find(id);
    if (!entry.known()) return kUnknownModel;
    if (layers < 1 || widths[layers - 1] != 1) return kBadShape;
    if (field_layers < 1 || field_widths[field_layers - 1] != kFieldOutputs) return kBadShape;
    const Layers energy(layers, widths, weights, biases);
    const Layers field(field_layers, field_widths, field_weights, field_biases);
    if (entry.single)
        add_networks(*entry.single, element, energy, field, constants);
    else
        add_networks(*entry.twofold, element, energy, field, constants);
    return 0;
} catch (...) {
    return kNoMemory;
}

// Energies, charges and dipoles (n, 5), kJ/mol, e and nm, in a potential (n) with gradient (n, 3) at positions
// (n, 3) in nm; cell: reduced vectors in rows, or null; total: the charge of all.
EXPORT int mlmm_field_forward(int64_t id, int64_t n, const double* positions, const double* cell,
                              const int64_t* species, const double* potential, const double* gradient, double total,
                              int threads, double* outputs, void** held) try {
    auto own = std::make_unique<HeldField>();
    own->model = field_registry().find(id);
    if (!own->model.known()) return kUnknownModel;
    for (int64_t i = 0; i < n; ++i)
        if (species[i] < 0 || species[i] >= own->model.functions().species) return kOutOfRange;
    bool found;
    if (own->model.single) {
        own->single = idle<FieldEvaluation<float>>().borrow();
        found = own->model.single->forward(*own->single, n, positions, cell, species, potential, gradient, total,
                                           threads, outputs);
    } else {
        own->twofold = idle<FieldEvaluation<double>>().borrow();
        found = own->model.twofold->forward(*own->twofold, n, positions, cell, species, potential, gradient, total,
                                            threads, outputs);
    }
    if (!found) return kMissingElement;
    *held = own.release();
    return 0;
} catch (...) {
    return kNoMemory;
}

// Adds derivatives by positions (n, 3), potential (n) and gradient (n, 3) for those by the outputs (n, 5).
EXPORT int mlmm_field_backward(void* held, const double* by_outputs, int threads, double* by_position,
                               double* by_potential, double* by_gradient) try {
    HeldField& own = *static_cast<HeldField*>(held);
    if (own.single)
        own.model.single->backward(*own.single, by_outputs, threads, by_position, by_potential, by_gradient);
    else
        own.model.twofold->backward(*own.twofold, by_outputs, threads, by_position, by_potential, by_gradient);
    return 0;
} catch (...) {
    return kNoMemory;
}

EXPORT void mlmm_field_release(void* held) {
    std::unique_ptr<HeldField> own(static_cast<HeldField*>(held));
    try {
        if (own->single) idle<FieldEvaluation<float>>().give_back(std::move(own->single));
        if (own->twofold) idle<FieldEvaluation<double>>().give_back(std::move(own->twofold));
    } catch (...) {
        // Only the work space is lost.
    }
}
