// ANI networks on a device, for rows that are given or that the device chooses in each step: what static, adaptive and
// supermolecular forces have in common.
#pragma once

#include "network_plan.h"
#include "on_device.h"

namespace mlmm {

class DeviceANI : public OnDevice {
   public:
    // Atoms (particles and then caps) as `force` has them, each with a weight or without. With `sides` those with a
    // weight are candidates only: the device takes as rows those whose entry in its array "candidateWeights" is not 0.
    // sides of an atom: 1, 2 or 3 where it is part of the first structure, of the second, or of both; a candidate of
    // both is one twice.
    DeviceANI(OpenMM::ComputeContext& cc, const ANIForce& force, const std::vector<int>& sides = {});

    // Further device code of the same program; before the first evaluation.
    void add(const std::string& source, const std::map<std::string, std::string>& defines);
    // At the begin of an evaluation; whether kernels of the program have to be made, again where there was one.
    bool prepare();
    void launch(bool forces, bool energy);
    // After it, in the same evaluation.
    void push_forces();
    // When all is launched. Without room for all rows and neighbours more of it is made, and this evaluation is void.
    bool had_room();
    // Whether its kernels take so little of a step that a queue of their own costs more than it saves.
    bool is_small() const { return few; }
    // Neither kernels nor arrays will change.
    bool is_settled() const { return compiled && describe && whole && !plainly; }
    // Of the energies of atoms since it was asked last; waits for the device.
    bool is_finite();

    // The place of an atom among the candidates on one side.
    int candidate(int atom, int side = 1) const { return candidate_of[side - 1][atom]; }
    int n_candidates() const { return static_cast<int>(candidates.size()); }

    Packing packing;
    const int n_atoms, members;
    int rows = 0;  // those that there is room for

   private:
    void make_candidates(const ANIForce& force, const std::vector<int>& sides);
    void make_arrays();
    void make_row_arrays();
    void make_lists(const std::string& name, int& room, int wanted);
    void compile_all();
    void make_kernels();
    OpenMM::ComputeKernel evaluation();
    void compare_evaluations();
    void run_networks(OpenMM::ComputeKernel& kernel, bool forces, bool energy);
    void grow();
    int row_size() const;
    int most_threads();

    bool few = false, moving = false, two_sides = false, compiled = false, whole = true;
    NetworkPlan plan;
    bool tensor_cores;
    std::vector<int> candidates, candidate_sides, atom_sides, candidate_of[2];
    std::string more;
    std::map<std::string, std::string> more_defines;
    OpenMM::ComputeKernel choose, sort, describe, evaluate, plainly, push;
    OpenMM::ComputeEvent event;
    int radial_room = 0, angular_room = 0, describe_group = 0, force_group = 0, row_group = 0, cells_along = 0;
};

}  // namespace mlmm
