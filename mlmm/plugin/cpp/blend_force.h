// Energies of ANI networks whose atoms change with the positions, as an OpenMM Force: adaptive zones, and whole
// energies with and without a region. And force-field pairs that are taken away, without networks.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "committee.h"
#include "openmm/Context.h"
#include "openmm/Force.h"
#include "openmm/KernelImpl.h"
#include "openmm/Platform.h"
#include "openmm/System.h"
#include "openmm/Vec3.h"
#include "openmm/internal/ForceImpl.h"

namespace mlmm {

// All that defines the energy, under the names that adaptive_blend.cpp and supermolecular_blend.cpp read.
class BlendForce : public OpenMM::Force {
   public:
    BlendForce(std::shared_ptr<const Committee> committee, std::string kind)
        : committee(std::move(committee)), kind(std::move(kind)) {
        setName("ANIBlendForce");
    }
    bool usesPeriodicBoundaryConditions() const override { return periodic; }

    std::shared_ptr<const Committee> committee;
    std::string kind;
    std::map<std::string, std::vector<int>> integers;
    std::map<std::string, std::vector<double>> numbers;
    bool periodic = false;
    // Arithmetic of the networks on the processor, and their threads; 0: those of the platform CPU, else one.
    bool twofold = false;
    int threads = 0;

   protected:
    OpenMM::ForceImpl* createImpl() const override;
};

// Energies by each member of what is in the zone.
struct MemberEnergies {
    std::vector<int> particles;    // (A,), -1 for what is no particle
    std::vector<double> energies;  // (members, A), each times its weight, kJ/mol
    // Forces (members, acting, 3) of their sums, where they are wanted, on the particles on which any can act.
    std::vector<double> forces;
    std::vector<int> acting;
};

// The energy of one force at any positions, on the processor; not for several threads at once.
class Blend {
   public:
    virtual ~Blend() = default;
    // kJ/mol; adds to the forces (particles of the System). box: vectors in rows, or null.
    virtual double evaluate(const OpenMM::Vec3* where, const OpenMM::Vec3* box, int threads, OpenMM::Vec3* forces) = 0;
    virtual void members(const OpenMM::Vec3* where, const OpenMM::Vec3* box, int threads, bool forces,
                         MemberEnergies& result) = 0;
};

// They check the arrays, and throw an OpenMMException for what does not fit.
std::unique_ptr<Blend> make_adaptive_blend(const BlendForce& force, int n_particles);
std::unique_ptr<Blend> make_supermolecular_blend(const BlendForce& force, int n_particles);
std::unique_ptr<Blend> make_pair_blend(const BlendForce& force, int n_particles);
std::unique_ptr<Blend> make_blend(const BlendForce& force, int n_particles);

// What GPU platforms supply.
class BlendKernel : public OpenMM::KernelImpl {
   public:
    static std::string Name() { return "CalcMlmmANIBlendForce"; }
    explicit BlendKernel(const OpenMM::Platform& platform) : OpenMM::KernelImpl(Name(), platform) {}
    // With arrays that make_blend() has accepted; false where no atom could ever have a network.
    virtual bool initialize(const OpenMM::System& system, const BlendForce& force) = 0;
    virtual void execute(bool forces, bool energy) = 0;
};

OpenMM::KernelImpl* make_blend_kernel(const OpenMM::Platform& platform, OpenMM::ContextImpl& context);

// Throws where a periodic box is smaller than twice the cutoff of the networks.
void check_box(const Committee& committee, const OpenMM::Vec3* box);

void register_blend_proxy();

}  // namespace mlmm
