// ANI networks on the processor behind a plain C interface: energies of atoms and their gradient.
//
// Loaded by mlmm/potentials/ani_kernel.py. Models live in a registry under a number that is made from their
// content; an evaluation is kept between the energies and their gradient. Functions return 0 when they did
// what they were asked, else one of the codes below, and never throw.

#include <unordered_map>

#include "export.h"
#include "model.h"
#include "symmetry_gradient.h"

namespace {

using namespace mlmm;

constexpr int kUnknownModel = 1, kMissingElement = 2, kOutOfRange = 3, kNoMemory = 4, kBadShape = 5;

// A model in one of both precisions.
struct Entry {
    std::shared_ptr<Model<float>> single;
    std::shared_ptr<Model<double>> twofold;
};

struct Registry {
    std::mutex mutex;
    std::unordered_map<int64_t, Entry> models;

    Entry find(int64_t id) {
        std::lock_guard<std::mutex> lock(mutex);
        const auto place = models.find(id);
        return place == models.end() ? Entry{} : place->second;
    }
};

// Never destroyed: threads of the host may still evaluate while the process ends.
Registry& registry() {
    static Registry* const instance = new Registry;
    return *instance;
}

// What the caller holds between energies and gradient.
struct Held {
    Entry model;
    std::unique_ptr<Evaluation<float>> single;
    std::unique_ptr<Evaluation<double>> twofold;
};

template <class T>
std::shared_ptr<Model<T>> new_model(const Functions& functions, int members, double length, double energy) {
    auto model = std::make_shared<Model<T>>();
    model->functions = functions, model->members = members;
    model->length_scale = length, model->energy_scale = energy;
    model->set_species(functions.species);
    return model;
}

template <class T>
void add_element(Model<T>& model, int element, const std::vector<int>& widths,
                 const std::vector<const double*>& weights, const std::vector<const double*>& biases) {
    model.put(element, std::make_shared<const ElementNetworks<T>>(model.functions, model.members, widths,
                                                                  weights, biases));
}

template <class T>
int evaluate(Model<T>& model, std::unique_ptr<Evaluation<T>>& evaluation, const double* positions, int64_t n,
             const double* cell, const int64_t* species, const int64_t* centres, int64_t n_centres,
             int threads, bool gradient, double* energies) {
    for (int64_t i = 0; i < n; ++i)
        if (species[i] < 0 || species[i] >= model.functions.species) return kOutOfRange;
    for (int64_t c = 0; c < n_centres; ++c)
        if (centres[c] < 0 || centres[c] >= n) return kOutOfRange;
    evaluation = model.borrow();
    const bool known = model.forward(*evaluation, positions, n, cell, species, centres, n_centres, threads,
                                     gradient, energies);
    if (!known) return kMissingElement;
    if (!gradient) model.give_back(std::move(evaluation));
    return 0;
}

}  // namespace

// The highest of the three builds that this processor can run: 4, 3 or 1.
EXPORT int mlmm_ani_processor() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    const bool third = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                       __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool fourth = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    return third && fourth ? 4 : third ? 3 : 1;
#else
    return 1;
#endif
}

EXPORT const char* mlmm_ani_level() { return kLevel; }

// Registers a model without networks; one that is there already stays. sizes: species, radial functions,
// factors by mean distance, factors by angle, members. constants: their parameters one list after the other,
// after both cutoffs and the scales of length (angstrom) and energy.
EXPORT int mlmm_ani_new(int64_t id, int twofold, const int64_t* sizes, const double* constants) try {
    std::lock_guard<std::mutex> lock(registry().mutex);
    if (registry().models.count(id)) return 0;
    double length, energy;
    const Functions f = read_functions(sizes, constants, length, energy);
    Entry entry;
    const int members = static_cast<int>(sizes[4]);
    if (twofold)
        entry.twofold = new_model<double>(f, members, length, energy);
    else
        entry.single = new_model<float>(f, members, length, energy);
    registry().models[id] = entry;
    return 0;
} catch (...) {
    return kNoMemory;
}

// 1 if the model has the networks of an element.
EXPORT int mlmm_ani_has(int64_t id, int element) {
    const Entry entry = registry().find(id);
    return (entry.single && entry.single->has(element)) || (entry.twofold && entry.twofold->has(element));
}

// Gives the model the networks of an element: widths (layers), the last of them 1; for each layer the weights
// (members, outputs, inputs) and biases (members, outputs).
EXPORT int mlmm_ani_element(int64_t id, int element, int layers, const int64_t* widths,
                            const double* const* weights, const double* const* biases) try {
    const Entry entry = registry().find(id);
    if (!entry.single && !entry.twofold) return kUnknownModel;
    if (layers < 1 || widths[layers - 1] != 1) return kBadShape;
    const std::vector<int> w(widths, widths + layers);
    const std::vector<const double*> all(weights, weights + layers), shifts(biases, biases + layers);
    if (entry.single)
        add_element(*entry.single, element, w, all, shifts);
    else
        add_element(*entry.twofold, element, w, all, shifts);
    return 0;
} catch (...) {
    return kNoMemory;
}

// Energies (members, centres); with `held`, the evaluation is kept there for mlmm_ani_backward.
EXPORT int mlmm_ani_forward(int64_t id, int64_t n, const double* positions, const double* cell,
                            const int64_t* species, int64_t n_centres, const int64_t* centres, int64_t members,
                            int threads, double* energies, void** held) try {
    auto own = std::make_unique<Held>();
    own->model = registry().find(id);
    int code = kUnknownModel;
    if ((own->model.single && own->model.single->members != members) ||
        (own->model.twofold && own->model.twofold->members != members))
        return kBadShape;
    if (own->model.single)
        code = evaluate(*own->model.single, own->single, positions, n, cell, species, centres, n_centres,
                        threads, held != nullptr, energies);
    else if (own->model.twofold)
        code = evaluate(*own->model.twofold, own->twofold, positions, n, cell, species, centres, n_centres,
                        threads, held != nullptr, energies);
    if (code == 0 && held) *held = own.release();
    return code;
} catch (...) {
    return kNoMemory;
}

// Adds the gradient (atoms, 3) for derivatives by the energies (members, centres).
EXPORT int mlmm_ani_backward(void* held, const double* by_energy, int threads, double* gradient) try {
    Held& own = *static_cast<Held*>(held);
    if (own.single)
        own.model.single->backward(*own.single, by_energy, threads, gradient);
    else
        own.model.twofold->backward(*own.twofold, by_energy, threads, gradient);
    return 0;
} catch (...) {
    return kNoMemory;
}

EXPORT void mlmm_ani_release(void* held) {
    std::unique_ptr<Held> own(static_cast<Held*>(held));
    try {
        if (own->single) own->model.single->give_back(std::move(own->single));
        if (own->twofold) own->model.twofold->give_back(std::move(own->twofold));
    } catch (...) {
        // Only the work space is lost.
    }
}
