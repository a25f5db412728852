// Reference and CPU platforms: both keep positions and forces in ReferencePlatform::PlatformData, in double.
//
// The networks are those of mlmm/kernels/cpp, in the build of that library that is best for the processor.
#include <dlfcn.h>

#include <algorithm>
#include <mutex>

#include "centres.h"
#include "openmm/reference/ReferencePlatform.h"

#ifndef MLMM_KERNELS_HASH
#define MLMM_KERNELS_HASH 0
#endif

using namespace OpenMM;

namespace mlmm {

namespace {

// Below so many centres a second thread costs more than it saves.
constexpr int kCentresPerThread = 16;

// The functions of mlmm/kernels/cpp/ani_kernel.cpp.
struct Library {
    int (*create)(int64_t, int, const int64_t*, const double*);
    int (*has)(int64_t, int);
    int (*element)(int64_t, int, int, const int64_t*, const double* const*, const double* const*);
    int (*forward)(int64_t, int64_t, const double*, const double*, const int64_t*, int64_t, const int64_t*, int64_t,
                   int, double*, void**);
    int (*backward)(void*, const double*, int, double*);
    void (*release)(void*);

    Library() {
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
        get(best, "mlmm_ani_release", release);
    }

    static const Library& instance() {
        static const Library library;
        return library;
    }

   private:
    // Beside this library: mlmm/plugin/cpp/x.so, mlmm/kernels/cpp/ani_*.so.
    static std::string kernels() {
        Dl_info here;
        if (!dladdr(reinterpret_cast<void*>(&register_proxy), &here) || !here.dli_fname)
            throw OpenMMException("Expected to know where the library of ANIForce is, but the system does not say. "
                                  "Load it by its full path.");
        std::string path = here.dli_fname;
        for (int up = 0; up < 3; ++up) path = path.substr(0, path.find_last_of('/'));
        return path + "/kernels/cpp";
    }
    static void* open(const std::string& path) {
        void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!handle)
            throw OpenMMException("Expected the compiled kernels of mlmm, but got: " + std::string(dlerror()) +
                                  ". Install mlmm again where there is a C++ compiler.");
        return handle;
    }
    template <class F>
    static F find(void* handle, const char* name) {
        F function = reinterpret_cast<F>(dlsym(handle, name));
        if (!function)
            throw OpenMMException("Expected " + std::string(name) + " in the compiled kernels of mlmm, but it is "
                                  "not there. Install mlmm again.");
        return function;
    }
    template <class F>
    static void get(void* handle, const char* name, F& function) {
        function = find<F>(handle, name);
    }
};

// Gives the library the networks that the centres need; what is there already stays.
int64_t load(const Library& library, const Committee& committee, bool twofold) {
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

class ReferenceANIKernel : public ANIKernel {
   public:
    using ANIKernel::ANIKernel;

    void initialize(const System&, const ANIForce& force) override {
        const Atoms atoms(force);
        species.assign(atoms.element.begin(), atoms.element.end());
        centres.assign(atoms.centres.begin(), atoms.centres.end());
        caps = force.caps, periodic = force.periodic, members = force.committee->members;
        most_threads = std::max(0, force.threads);
        particles.clear();
        for (const SeenParticle& p : force.particles) particles.push_back(p.particle);
        positions.resize(3 * species.size());
        energies.resize(members * centres.size());
        model = load(library, *force.committee, force.twofold);
        read_weights(force);
    }

    void read_weights(const ANIForce& force) override {
        const Atoms atoms(force);
        by_energy.clear();
        for (int m = 0; m < members; ++m)
            for (const int64_t c : centres) by_energy.push_back(atoms.weight[c] / members);
    }

    double execute(ContextImpl& context, bool forces, bool) override {
        if (centres.empty()) return 0.0;
        auto& data = *static_cast<ReferencePlatform::PlatformData*>(context.getPlatformData());
        const Vec3* box = periodic ? data.periodicBoxVectors : nullptr;
        gather(*data.positions, box);
        double cell[9];
        for (int i = 0; box && i < 9; ++i) cell[i] = box[i / 3][i % 3];
        const int n = static_cast<int>(centres.size());
        if (most_threads == 0) most_threads = threads_of(context);
        const int threads = std::max(1, std::min(most_threads, n / kCentresPerThread));
        void* held = nullptr;
        check(library.forward(model, species.size(), positions.data(), box ? cell : nullptr, species.data(), n,
                              centres.data(), members, threads, energies.data(), forces ? &held : nullptr));
        if (forces) {
            gradient.assign(positions.size(), 0.0);
            const int code = library.backward(held, by_energy.data(), threads, gradient.data());
            library.release(held);
            check(code);
            scatter(*data.positions, box, *data.forces);
        }
        double total = 0.0;
        for (size_t k = 0; k < energies.size(); ++k) total += by_energy[k] * energies[k];
        return total;
    }

    void atom_energies(std::vector<double>& result) override { result = energies; }

   private:
    static void check(int code) {
        if (code != 0)
            throw OpenMMException("Expected memory for the ANI networks, but got none (code " +
                                  std::to_string(code) + "). Use fewer atoms or members.");
    }

    // Those of the platform CPU; Reference has one.
    static int threads_of(ContextImpl& context) {
        const Platform& platform = context.getPlatform();
        return platform.getName() == "CPU" ? std::stoi(platform.getPropertyValue(context.getOwner(), "Threads")) : 1;
    }

    void put(size_t i, const Vec3& r) {
        for (int a = 0; a < 3; ++a) positions[3 * i + a] = r[a];
    }

    void gather(const std::vector<Vec3>& all, const Vec3* box) {
        for (size_t i = 0; i < particles.size(); ++i) put(i, all[particles[i]]);
        for (size_t k = 0; k < caps.size(); ++k) {
            const Vec3 bond = nearest_image(all[caps[k].inner] - all[caps[k].outer], box);
            put(particles.size() + k, all[caps[k].outer] + bond * (caps[k].distance / std::sqrt(bond.dot(bond))));
        }
    }

    void scatter(const std::vector<Vec3>& all, const Vec3* box, std::vector<Vec3>& forces) const {
        const auto force = [&](size_t i) {
            return Vec3(-gradient[3 * i], -gradient[3 * i + 1], -gradient[3 * i + 2]);
        };
        for (size_t i = 0; i < particles.size(); ++i) forces[particles[i]] += force(i);
        for (size_t k = 0; k < caps.size(); ++k) {
            const Vec3 bond = nearest_image(all[caps[k].inner] - all[caps[k].outer], box);
            const double length = std::sqrt(bond.dot(bond));
            const Vec3 unit = bond / length, whole = force(particles.size() + k);
            // Across the bond only: along it the cap does not follow the atom that it stands for.
            const Vec3 share = (whole - unit * whole.dot(unit)) * (caps[k].distance / length);
            forces[caps[k].inner] += share;
            forces[caps[k].outer] += whole - share;
        }
    }

    const Library& library = Library::instance();
    std::vector<int> particles;
    std::vector<Cap> caps;
    std::vector<int64_t> species, centres;
    std::vector<double> by_energy, positions, gradient, energies;
    int64_t model = 0;
    int members = 0, most_threads = 0;
    bool periodic = false;
};

}  // namespace

ANIKernel* make_reference_kernel(const Platform& platform) { return new ReferenceANIKernel(platform); }

}  // namespace mlmm
