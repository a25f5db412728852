// ANI networks as an OpenMM Force: sum_i w_i eps_i, the mean over the members of a committee.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "committee.h"
#include "openmm/Force.h"
#include "openmm/Kernel.h"
#include "openmm/KernelImpl.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/System.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/internal/ForceImpl.h"

namespace mlmm {

// A particle that the networks see; those of weight 0 act as neighbours only.
struct SeenParticle {
    int particle, element;
    double weight;
};

// A hydrogen on a bond that is cut: so far from the particle that stays, towards the one that it stands for.
// Its weight is 1.
struct Cap {
    int outer, inner;
    double distance;  // nm
    int element;
};

class ANIForce : public OpenMM::Force {
   public:
    explicit ANIForce(std::shared_ptr<const Committee> committee) : committee(std::move(committee)) {
        setName("ANIForce");
    }
    bool usesPeriodicBoundaryConditions() const override { return periodic; }
    int size() const { return static_cast<int>(particles.size() + caps.size()); }
    // The Context must be one made from the System that holds this very object.
    void update_parameters(OpenMM::Context& context);
    // Energies of the last evaluation, kJ/mol, (members, particles and then caps); NaN for those of weight 0.
    void atom_energies(OpenMM::Context& context, std::vector<double>& energies);

    std::shared_ptr<const Committee> committee;
    std::vector<SeenParticle> particles;
    std::vector<Cap> caps;
    bool periodic = false;
    // Arithmetic of the networks on the processor; a GPU has that of its platform.
    bool twofold = false;
    // Of the networks on the processor; 0: those of the platform CPU, one on Reference.
    int threads = 0;

   protected:
    OpenMM::ForceImpl* createImpl() const override;
};

// What each platform supplies.
class ANIKernel : public OpenMM::KernelImpl {
   public:
    static std::string Name() { return "CalcMlmmANIForce"; }
    explicit ANIKernel(const OpenMM::Platform& platform) : OpenMM::KernelImpl(Name(), platform) {}
    virtual void initialize(const OpenMM::System& system, const ANIForce& force) = 0;
    virtual void read_weights(const ANIForce& force) = 0;
    virtual double execute(OpenMM::ContextImpl& context, bool forces, bool energy) = 0;
    // Energies (members, centres) of the last evaluation; centres: what has a weight, in the order of the force.
    virtual void atom_energies(std::vector<double>& energies) = 0;
};

// What an evaluation ends with whose energy or forces are no numbers.
OpenMM::OpenMMException not_finite();
// What there was no memory for.
OpenMM::OpenMMException no_memory();
// Refuses particles, caps and weights that do not go with the committee and a System with so many particles.
void check_atoms(const ANIForce& force, int n_particles);

ANIKernel* make_reference_kernel(const OpenMM::Platform& platform);
ANIKernel* make_common_kernel(const OpenMM::Platform& platform, OpenMM::ContextImpl& context);

void register_proxy();

}  // namespace mlmm
