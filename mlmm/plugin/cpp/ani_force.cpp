// What is the same on all platforms: the force in a Context, what it refuses.
#include "ani_force.h"

#include <cmath>
#include <new>
#include <set>

#include "blend_force.h"

using namespace OpenMM;

namespace mlmm {

namespace {

void check_weights(const ANIForce& force) {
    for (const SeenParticle& p : force.particles)
        if (!std::isfinite(p.weight))
            throw OpenMMException("Expected finite weights of particles, but got NaN or infinity for particle " +
                                  std::to_string(p.particle) + ". Set it between 0 and 1.");
}

class ANIForceImpl : public ForceImpl {
   public:
    explicit ANIForceImpl(const ANIForce& owner) : owner(owner) {}

    void initialize(ContextImpl& context) override {
        check_atoms(owner, context.getSystem().getNumParticles());
        particles = owner.particles, caps = owner.caps;
        try {
            kernel = context.getPlatform().createKernel(ANIKernel::Name(), context);
            kernel.getAs<ANIKernel>().initialize(context.getSystem(), owner);
        } catch (const std::bad_alloc&) {
            throw no_memory();
        }
    }
    const Force& getOwner() const override { return owner; }
    void updateContextState(ContextImpl&, bool&) override {}
    double calcForcesAndEnergy(ContextImpl& context, bool forces, bool energy, int groups) override {
        if ((groups & (1 << owner.getForceGroup())) == 0) return 0.0;
        if (owner.periodic) {
            Vec3 box[3];
            context.getPeriodicBoxVectors(box[0], box[1], box[2]);
            check_box(*owner.committee, box);
        }
        evaluated = true;
        return kernel.getAs<ANIKernel>().execute(context, forces, energy);
    }
    std::map<std::string, double> getDefaultParameters() override { return {}; }
    std::vector<std::string> getKernelNames() override { return {ANIKernel::Name()}; }

    void update_parameters(ContextImpl& context) {
        bool same = owner.particles.size() == particles.size() && owner.caps.size() == caps.size();
        for (size_t i = 0; same && i < particles.size(); ++i)
            same = owner.particles[i].particle == particles[i].particle &&
                   owner.particles[i].element == particles[i].element &&
                   (owner.particles[i].weight == 0) == (particles[i].weight == 0);
        if (!same)
            throw OpenMMException(
                "Expected new weights of the particles of the Context, but got other particles, or a weight that "
                "becomes zero or ceases to be. Call context.reinitialize(preserveState=True).");
        check_weights(owner);
        particles = owner.particles;
        kernel.getAs<ANIKernel>().read_weights(owner);
        // Else the integrator goes on with forces from the old weights.
        context.systemChanged();
    }

    void atom_energies(ContextImpl& context, std::vector<double>& energies) {
        if (!evaluated) context.calcForcesAndEnergy(false, true, 1 << owner.getForceGroup());
        std::vector<double> found;
        kernel.getAs<ANIKernel>().atom_energies(found);
        const size_t n = particles.size() + caps.size(), members = owner.committee->members;
        energies.assign(members * n, std::nan(""));
        size_t next = 0;
        for (size_t m = 0; m < members; ++m)
            for (size_t i = 0; i < n; ++i)
                if (i >= particles.size() || particles[i].weight != 0) energies[m * n + i] = found[next++];
    }

   private:
    const ANIForce& owner;
    std::vector<SeenParticle> particles;
    std::vector<Cap> caps;
    Kernel kernel;
    bool evaluated = false;
};

}  // namespace

void check_atoms(const ANIForce& force, int n_particles) {
    const Committee& committee = *force.committee;
    if (committee.elements.empty())
        throw OpenMMException("Expected a committee of ANI networks, but the ANIForce has none. Give it one.");
    const auto inside = [&](int particle) {
        if (particle < 0 || particle >= n_particles)
            throw OpenMMException("Expected particles between 0 and " +
                                  std::to_string(n_particles - 1) + " in an ANIForce, but got " +
                                  std::to_string(particle) + ". Count from 0.");
    };
    const auto known = [&](int element, double weight) {
        if (element < 0 || element >= static_cast<int>(committee.elements.size()))
            throw OpenMMException("Expected an element of the ANI networks, but got number " +
                                  std::to_string(element) + ". Choose another potential.");
        if (weight != 0 && committee.networks[element].empty())
            throw OpenMMException("Expected networks for " + committee.elements[element] +
                                  ", of which a particle with a weight is one, but got none. Give the "
                                  "committee all its elements.");
    };
    std::set<int> seen;
    for (const SeenParticle& p : force.particles) {
        inside(p.particle);
        known(p.element, p.weight);
        if (!seen.insert(p.particle).second)
            throw OpenMMException("Expected every particle once in an ANIForce, but got " +
                                  std::to_string(p.particle) + " twice. Add it once.");
    }
    for (const Cap& cap : force.caps) {
        inside(cap.outer), inside(cap.inner);
        known(cap.element, 1.0);
        if (cap.outer == cap.inner || !(cap.distance > 0) || !std::isfinite(cap.distance))
            throw OpenMMException("Expected a cap on a bond between two particles, at a positive distance, but "
                                  "got particle " + std::to_string(cap.outer) + ". Give the bond that is cut.");
    }
    check_weights(force);
}

OpenMMException no_memory() {
    return OpenMMException("Expected memory for ANI networks, but got none. Use fewer members or atoms.");
}

OpenMMException not_finite() {
    return OpenMMException("Expected finite energies of the atoms of an ANIForce, but got NaN or infinity. Look at the "
                           "positions for atoms on top of each other, or use a smaller time step.");
}

ForceImpl* ANIForce::createImpl() const { return new ANIForceImpl(*this); }

void ANIForce::update_parameters(Context& context) {
    dynamic_cast<ANIForceImpl&>(getImplInContext(context)).update_parameters(getContextImpl(context));
}

void ANIForce::atom_energies(Context& context, std::vector<double>& energies) {
    dynamic_cast<ANIForceImpl&>(getImplInContext(context)).atom_energies(getContextImpl(context), energies);
}

}  // namespace mlmm
