#include "networks.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "ani_force.h"

#ifndef MLMM_KERNELS_HASH
#define MLMM_KERNELS_HASH 0
#endif

using namespace OpenMM;

namespace mlmm {

namespace {

// Below so many centres a second thread costs more than it saves.
constexpr int kCentresPerThread = 4;

// Beside this library: mlmm/plugin/cpp/x.so, mlmm/kernels/cpp/ani_*.so.
std::string kernels() {
    Dl_info here;
    if (!dladdr(reinterpret_cast<void*>(&register_proxy), &here) || !here.dli_fname)
        throw OpenMMException("Expected to know where the library of ANIForce is, but the system does not say. "
                              "Load it by its full path.");
    std::string path = here.dli_fname;
    for (int up = 0; up < 3; ++up) path = path.substr(0, path.find_last_of('/'));
    return path + "/kernels/cpp";
}
void* open(const std::string& path) {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        throw OpenMMException("Expected the compiled kernels of mlmm, but got: " + std::string(dlerror()) +
                              ". Install mlmm again where there is a C++ compiler.");
    return handle;
}
template <class F>
F find(void* handle, const char* name) {
    F function = reinterpret_cast<F>(dlsym(handle, name));
    if (!function)
        throw OpenMMException("Expected " + std::string(name) + " in the compiled kernels of mlmm, but it is "
                              "not there. Install mlmm again.");
    return function;
}
template <class F>
void get(void* handle, const char* name, F& function) {
    function = find<F>(handle, name);
}

// Gives the library the networks that the centres need; what is there already stays.
int64_t load(const KernelLibrary& library, const Committee& committee, bool twofold) {
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    const int64_t number = committee.number() ^ (twofold ? 0x5555 : 0);
    const int64_t sizes[] = {static_cast<int64_t>(committee.elements.size()),
                             static_cast<int64_t>(committee.eta_radial.size()),
                             static_cast<int64_t>(committee.eta_mean.size()),
                             static_cast<int64_t>(committee.zeta.size()), committee.members};
    std::vector<double> constants = {committee.radial_cutoff, committee.angular_cutoff, committee.length,
                                     committee.energy};
    for (const auto* list : {&committee.eta_radial, &committee.shift_radial, &committee.eta_mean,
                             &committee.shift_mean, &committee.zeta, &committee.angle})
        constants.insert(constants.end(), list->begin(), list->end());
    int code = library.create(number, twofold, sizes, constants.data());
    for (size_t e = 0; code == 0 && e < committee.networks.size(); ++e) {
        const ElementWeights& networks = committee.networks[e];
        if (networks.empty() || library.has(number, static_cast<int>(e))) continue;
        const std::vector<int64_t> widths(networks.widths.begin(), networks.widths.end());
        std::vector<std::vector<double>> values;
        for (const auto* layers : {&networks.weights, &networks.biases})
            for (const auto& layer : *layers) values.emplace_back(layer.begin(), layer.end());
        std::vector<const double*> pointers;
        for (const auto& layer : values) pointers.push_back(layer.data());
        code = library.element(number, static_cast<int>(e), static_cast<int>(widths.size()), widths.data(),
                               pointers.data(), pointers.data() + widths.size());
    }
    if (code != 0) throw OpenMMException("Expected memory for ANI networks, but got none. Use fewer members.");
    return number;
}

}  // namespace

KernelLibrary::KernelLibrary() {
    const std::string folder = kernels();
    void* generic = open(folder + "/ani_generic.so");
    const int level = find<int (*)()>(generic, "mlmm_ani_processor")();
    void* best = generic;
    for (const int better : {4, 3}) {
        void* other = level >= better ? dlopen((folder + "/ani_v" + std::to_string(better) + ".so").c_str(),
                                               RTLD_NOW | RTLD_LOCAL)
                                      : nullptr;
        if (other) {
            best = other;
            break;
        }
    }
    if (find<uint64_t (*)()>(best, "mlmm_source_hash")() != MLMM_KERNELS_HASH)
        throw OpenMMException("Expected the kernels that the ANIForce was compiled with, but got those of other "
                              "sources in " + folder + ". Install mlmm again.");
    get(best, "mlmm_ani_new", create), get(best, "mlmm_ani_has", has), get(best, "mlmm_ani_element", element);
    get(best, "mlmm_ani_forward", forward), get(best, "mlmm_ani_backward", backward);
    get(best, "mlmm_ani_release", release), get(best, "mlmm_pairs_shared", pairs_shared);
    get(best, "mlmm_pairs_region", pairs_region), get(best, "mlmm_atoms_near", atoms_near);
}

const KernelLibrary& KernelLibrary::instance() {
    static const KernelLibrary library;
    return library;
}

void KernelLibrary::check(int code) {
    if (code != 0)
        throw OpenMMException("Expected memory for the ANI networks, but got none (code " + std::to_string(code) +
                              "). Use fewer atoms or members.");
}

Networks::Networks(const Committee& committee, bool twofold)
    : model_(load(library_, committee, twofold)), members_(committee.members) {}

void Networks::energies(const std::vector<double>& positions, const double* cell, const std::vector<int64_t>& species,
                        const std::vector<int64_t>& centres, int most_threads, bool keep,
                        std::vector<double>& result) {
    held_.reset();
    const int n = static_cast<int>(centres.size());
    threads_ = std::max(1, std::min(most_threads, n / kCentresPerThread));
    result.resize(members_ * centres.size());
    size_ = positions.size();
    void* held = nullptr;
    KernelLibrary::check(library_.forward(model_, species.size(), positions.data(), cell, species.data(), n,
                                          centres.data(), members_, threads_, result.data(), keep ? &held : nullptr));
    held_.reset(held);
}

void Networks::gradient(const std::vector<double>& by_energy, std::vector<double>& result) const {
    result.assign(size_, 0.0);
    KernelLibrary::check(library_.backward(held_.get(), by_energy.data(), threads_, result.data()));
}

bool are_finite(const std::vector<double>& numbers) {
    return std::all_of(numbers.begin(), numbers.end(), [](double value) { return std::isfinite(value); });
}

int threads_of(ContextImpl& context) {
    const Platform& platform = context.getPlatform();
    return platform.getName() == "CPU" ? std::stoi(platform.getPropertyValue(context.getOwner(), "Threads")) : 1;
}

}  // namespace mlmm
