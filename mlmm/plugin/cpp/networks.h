// The kernels of mlmm/kernels/cpp for the processor, in the build of that library that is best for it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "committee.h"
#include "openmm/internal/ContextImpl.h"

namespace mlmm {

// Functions of ani_kernel.cpp and pair_kernel.cpp, described there.
struct KernelLibrary {
    int (*create)(int64_t, int, const int64_t*, const double*);
    int (*has)(int64_t, int);
    int (*element)(int64_t, int, int, const int64_t*, const double* const*, const double* const*);
    int (*forward)(int64_t, int64_t, const double*, const double*, const int64_t*, int64_t, const int64_t*, int64_t,
                   int, double*, void**);
    int (*backward)(void*, const double*, int, double*);
    void (*release)(void*);
    int (*pairs_shared)(int64_t, const double*, const double*, int64_t, const int64_t*, int64_t, const int64_t*,
                        const double*, const int64_t*, const int64_t*, const double*, const double*, double*, double*,
                        double*);
    int (*pairs_region)(int64_t, const double*, const double*, const double*, const int64_t*, const int64_t*,
                        const double*, int, double*, double*);
    int (*atoms_near)(int64_t, const double*, const double*, int64_t, const int64_t*, int64_t, const int64_t*, double,
                      unsigned char*);

    // Throws an OpenMMException where it is missing or was made of other sources.
    static const KernelLibrary& instance();
    // Throws an OpenMMException for a code other than 0.
    static void check(int code);

   private:
    KernelLibrary();
};

// A committee on the processor. An evaluation is kept until the next, so that its gradient can be asked for.
class Networks {
   public:
    Networks(const Committee& committee, bool twofold);

    int members() const { return members_; }
    // eps (members, centres), kJ/mol, of some among the atoms, with their positions in nm; box vectors in rows, or null.
    void energies(const std::vector<double>& positions, const double* cell, const std::vector<int64_t>& species,
                  const std::vector<int64_t>& centres, int most_threads, bool keep, std::vector<double>& result);
    // Gradient (atoms, 3) of sum by_energy (members, centres) times the energies that were kept; any number of times.
    void gradient(const std::vector<double>& by_energy, std::vector<double>& result) const;

   private:
    struct Release {
        void operator()(void* held) const { KernelLibrary::instance().release(held); }
    };
    const KernelLibrary& library_ = KernelLibrary::instance();
    std::unique_ptr<void, Release> held_;
    int64_t model_ = 0;
    size_t size_ = 0;
    int members_ = 0, threads_ = 1;
};

bool are_finite(const std::vector<double>& numbers);

// Those of the platform CPU; others have one.
int threads_of(OpenMM::ContextImpl& context);

}  // namespace mlmm
