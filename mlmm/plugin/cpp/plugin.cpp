// What the outside sees: OpenMM's entry point for plugins, and a C interface for Python's ctypes.
#include <algorithm>
#include <cstring>

#include "ani_force.h"
#include "blend_force.h"
#include "guarded.h"
#include "openmm/KernelFactory.h"

using namespace OpenMM;
using namespace mlmm;

namespace {

class ANIKernelFactory : public KernelFactory {
    KernelImpl* createKernelImpl(std::string name, const Platform& platform, ContextImpl& context) const override {
        if (name == BlendKernel::Name()) return make_blend_kernel(platform, context);
        if (platform.getName() == "Reference" || platform.getName() == "CPU")
            return make_reference_kernel(platform);
        return make_common_kernel(platform, context);
    }
};

ANIForce& ani(Force* force) { return dynamic_cast<ANIForce&>(*force); }

// What a Context holds is open to forces alone.
struct Inside : public Force {
    using Force::getContextImpl;
    ForceImpl* createImpl() const override { throw OpenMMException("no force of a System"); }
};

}  // namespace

// Platform::loadPluginLibrary() calls it.
EXPORT void registerKernelFactories() {
    // Layouts of classes are compiled in: refuse any other OpenMM than that of the headers.
    if (Platform::getOpenMMVersion() != MLMM_OPENMM_VERSION)
        throw OpenMMException("Expected OpenMM " MLMM_OPENMM_VERSION ", for which ANIForce was compiled, but got " +
                              Platform::getOpenMMVersion() + ". Install mlmm again beside this OpenMM.");
    static bool first = true;
    if (first) register_proxy(), register_blend_proxy();
    first = false;
    for (int i = 0; i < Platform::getNumPlatforms(); ++i) {
        Platform& platform = Platform::getPlatform(i);
        // Called again after a further platform was loaded.
        if (platform.supportsKernels({ANIKernel::Name()})) continue;
        for (const char* name : {"Reference", "CPU", "OpenCL", "CUDA", "HIP"})
            if (platform.getName() == name) platform.registerKernelFactory(ANIKernel::Name(), new ANIKernelFactory());
        for (const char* name : {"OpenCL", "CUDA", "HIP"})
            if (platform.getName() == name) platform.registerKernelFactory(BlendKernel::Name(), new ANIKernelFactory());
    }
}

EXPORT const char* mlmm_plugin_error() { return last_error().c_str(); }

// A committee without networks. symbols: separated by blanks. sizes: radial functions, factors by mean distance,
// factors by angle, members. constants: both cutoffs (angstrom), angstrom in 1 nm, kJ/mol in 1 hartree, then eta
// and shift of the radial functions, of the means, zeta and angles.
EXPORT int mlmm_plugin_committee(const char* symbols, const int64_t* sizes, const double* constants, void** made) {
    return guarded([&] {
        auto committee = std::make_unique<Committee>();
        std::string symbol;
        for (const char* c = symbols;; ++c) {
            if (*c && *c != ' ') {
                symbol += *c;
                continue;
            }
            if (!symbol.empty()) committee->elements.push_back(symbol);
            symbol.clear();
            if (!*c) break;
        }
        committee->networks.resize(committee->elements.size());
        committee->radial_cutoff = *constants++, committee->angular_cutoff = *constants++;
        committee->length = *constants++, committee->energy = *constants++;
        const auto take = [&](std::vector<double>& list, int64_t n) {
            list.assign(constants, constants + n);
            constants += n;
        };
        take(committee->eta_radial, sizes[0]), take(committee->shift_radial, sizes[0]);
        take(committee->eta_mean, sizes[1]), take(committee->shift_mean, sizes[1]);
        take(committee->zeta, sizes[2]), take(committee->angle, sizes[2]);
        committee->members = static_cast<int>(sizes[3]);
        *made = committee.release();
    });
}

// Networks of one element; sizes: the number of weights and of biases in each layer.
EXPORT int mlmm_plugin_element(void* made, int element, int layers, const int64_t* widths, const int64_t* sizes,
                               const float* const* weights, const float* const* biases) {
    return guarded([&] {
        ElementWeights networks;
        for (int k = 0; k < layers; ++k) {
            networks.widths.push_back(static_cast<int>(widths[k]));
            networks.weights.emplace_back(weights[k], weights[k] + sizes[2 * k]);
            networks.biases.emplace_back(biases[k], biases[k] + sizes[2 * k + 1]);
        }
        static_cast<Committee*>(made)->networks.at(element) = std::move(networks);
    });
}

// Gives the committee to a force, or nobody (null), and ends it.
EXPORT int mlmm_plugin_give(void* made, Force* force) {
    std::shared_ptr<Committee> committee(static_cast<Committee*>(made));
    return guarded([&] {
        if (!force) return;
        committee->check();
        if (auto* blend = dynamic_cast<BlendForce*>(force))
            blend->committee = shared(committee);
        else
            ani(force).committee = shared(committee);
    });
}

EXPORT int mlmm_plugin_is(Force* force) { return dynamic_cast<ANIForce*>(force) != nullptr; }

// particles, caps, members, 1 if periodic, 1 if in double precision, threads
EXPORT int mlmm_plugin_sizes(Force* force, int64_t* sizes) {
    return guarded([&] {
        const ANIForce& own = ani(force);
        sizes[0] = own.particles.size(), sizes[1] = own.caps.size(), sizes[2] = own.committee->members;
        sizes[3] = own.periodic, sizes[4] = own.twofold, sizes[5] = own.threads;
    });
}

// The symbols of the committee's elements, with a blank behind each.
EXPORT int mlmm_plugin_symbols(Force* force, char* text, int64_t room) {
    return guarded([&] {
        std::string all;
        for (const std::string& symbol : ani(force).committee->elements) all += symbol + " ";
        if (static_cast<int64_t>(all.size()) >= room) throw OpenMMException("too many elements");
        std::memcpy(text, all.c_str(), all.size() + 1);
    });
}

EXPORT int mlmm_plugin_set_particles(Force* force, int64_t n, const int32_t* particles, const int32_t* elements,
                                     const double* weights) {
    return guarded([&] {
        std::vector<SeenParticle> all;
        for (int64_t i = 0; i < n; ++i) all.push_back({particles[i], elements[i], weights[i]});
        ani(force).particles = std::move(all);
    });
}

EXPORT int mlmm_plugin_get_particles(Force* force, int32_t* particles, int32_t* elements, double* weights) {
    return guarded([&] {
        for (const SeenParticle& p : ani(force).particles)
            *particles++ = p.particle, *elements++ = p.element, *weights++ = p.weight;
    });
}

EXPORT int mlmm_plugin_set_caps(Force* force, int64_t n, const int32_t* outer, const int32_t* inner,
                                const double* distances, int element) {
    return guarded([&] {
        std::vector<Cap> all;
        for (int64_t i = 0; i < n; ++i) all.push_back({outer[i], inner[i], distances[i], element});
        ani(force).caps = std::move(all);
    });
}

EXPORT int mlmm_plugin_get_caps(Force* force, int32_t* outer, int32_t* inner, double* distances) {
    return guarded([&] {
        for (const Cap& cap : ani(force).caps)
            *outer++ = cap.outer, *inner++ = cap.inner, *distances++ = cap.distance;
    });
}

EXPORT int mlmm_plugin_set_options(Force* force, int periodic, int threads) {
    return guarded([&] { ani(force).periodic = periodic != 0, ani(force).threads = threads; });
}

EXPORT int mlmm_plugin_update(Force* force, Context* context) {
    return guarded([&] { ani(force).update_parameters(*context); });
}

// Potential energies of sets of force groups, one bit for each group; as barostats evaluate them. Then the kinetic
// energy, after an evaluation of all forces where `kinetic` is 2, unless it is 0; positions and velocities (particles, 3)
// and box vectors in rows, unless null. Without the copies that a State makes of them.
EXPORT int mlmm_plugin_moment(Context* context, int n, const uint32_t* groups, double* energies, int kinetic,
                              double* kinetic_energy, double* positions, double* velocities, double* box) {
    return guarded([&] {
        ContextImpl& inside = Inside().getContextImpl(*context);
        for (int i = 0; i < n; ++i)
            energies[i] = inside.calcForcesAndEnergy(false, true, static_cast<int>(groups[i]));
        if (kinetic == 2) inside.calcForcesAndEnergy(true, false, -1);
        if (kinetic != 0) *kinetic_energy = inside.calcKineticEnergy();
        std::vector<Vec3> found;
        const auto copy = [&](double* to) {
            for (const Vec3& row : found)
                for (int a = 0; a < 3; ++a) *to++ = row[a];
        };
        if (positions) inside.getPositions(found), copy(positions);
        if (velocities) inside.getVelocities(found), copy(velocities);
        if (!box) return;
        found.resize(3);
        inside.getPeriodicBoxVectors(found[0], found[1], found[2]), copy(box);
    });
}

// Energies (members, particles and then caps).
EXPORT int mlmm_plugin_atom_energies(Force* force, Context* context, int64_t n, double* energies) {
    return guarded([&] {
        std::vector<double> found;
        ani(force).atom_energies(*context, found);
        if (n != static_cast<int64_t>(found.size()))
            throw OpenMMException("Expected the particles of the Context, but the force has others by now. Call "
                                  "context.reinitialize(preserveState=True).");
        std::copy(found.begin(), found.end(), energies);
    });
}
