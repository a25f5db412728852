// OpenCL, CUDA and HIP in one library that links to none of them: everything on the device goes through virtual
// methods of ComputeContext, ArrayInterface and ComputeKernelImpl, so that no symbol of libOpenMMOpenCL, CUDA or HIP
// is needed, nor their headers. Of ComputeContext only virtual or inline methods may be called here.
#include <algorithm>
#include <cmath>
#include <memory>

#include "centres.h"
#include "device_forces.h"
#include "device_neighbours.h"
#include "device_networks.h"
#include "device_symmetry.h"
#include "openmm/common/ComputeContext.h"
#include "openmm/common/ContextSelector.h"
#include "openmm/cuda/CudaPlatform.h"
#include "openmm/hip/HipPlatform.h"
#include "openmm/opencl/OpenCLPlatform.h"
#include "packing.h"

using namespace OpenMM;

// Each platform's library has its own copy of these four; with them, the vtable of the class is at home here too.
namespace OpenMM {
bool ComputeForceInfo::areParticlesIdentical(int, int) { return true; }
int ComputeForceInfo::getNumParticleGroups() { return 0; }
void ComputeForceInfo::getParticlesInGroup(int, std::vector<int>&) {}
bool ComputeForceInfo::areGroupsIdentical(int, int) { return true; }
}  // namespace OpenMM

namespace mlmm {

namespace {

constexpr int kSearchGroup = 128, kSearchChunk = 2048, kNetworkGroup = 256;
// Local memory, bytes: what every device of CUDA and HIP has, and of OpenCL.
constexpr int kLocalMemory = 49152, kLeastLocalMemory = 32768;
// Regions that leave most of a large device idle: small tiles, and more threads for each centre.
constexpr int kFewCentres = 64;
// Lists of neighbours with room for every atom take no more than this, bytes; longer ones grow where they must.
constexpr size_t kWholeLists = 64u << 20;
// Evaluations between two looks at whether an energy was no number, where nobody asks for the energy.
constexpr int kLookEvery = 64;

// GPU platforms swap whole identical molecules to keep neighbours together. A place in their arrays keeps its kind of
// atom: that is enough for atoms of weight 0, while one with a weight of its own is identical to no other.
// (ComputeForceInfo has no virtual destructor: nothing is owned here.)
struct ForceInfo : public ComputeForceInfo {
    explicit ForceInfo(const std::vector<int>& kinds) : kinds(kinds) {}
    bool areParticlesIdentical(int a, int b) override { return a == b || (kinds[a] == kinds[b] && kinds[a] <= 0); }
    const std::vector<int>& kinds;
};

// ComputeContext::setCurrentQueue is in the library of each platform, and this one links to none of them.
struct Queues : public ComputeContext {
    static ComputeQueue& current(ComputeContext& context) { return context.*&Queues::currentQueue; }
};

class CommonANIKernel : public ANIKernel {
   public:
    CommonANIKernel(const Platform& platform, const std::vector<ComputeContext*>& contexts)
        : ANIKernel(platform), contexts(contexts), cc(*contexts[0]), opencl(platform.getName() == "OpenCL") {}

    void initialize(const System& system, const ANIForce& force) override {
        ContextSelector selector(cc);
        // 0: not seen; negative: an element without weight; positive: with one.
        kinds.assign(system.getNumParticles(), 0);
        for (const SeenParticle& p : force.particles) kinds[p.particle] = p.weight == 0 ? -1 - p.element : 1;
        for (const Cap& cap : force.caps) kinds[cap.outer] = kinds[cap.inner] = 1;
        for (ComputeContext* context : contexts) context->addForce(new ForceInfo(kinds));
        const Atoms atoms(force);
        if (atoms.centres.empty()) return;
        twofold = cc.getUseDoublePrecision(), wide = twofold || cc.getUseMixedPrecision();
        periodic = force.periodic;
        members = force.committee->members;
        choose_groups(force, static_cast<int>(atoms.centres.size()));
        packing = std::make_unique<Packing>(force, rows, tile_rows);
        n = static_cast<int>(packing->centres.size()), n_atoms = atoms.size();
        make_arrays();
        read_weights(force);
        compile();
        cc.getPostComputations().push_back(new PostComputation(*this, force.getForceGroup()));
        queue = cc.createQueue(), ready = cc.createEvent(), done = cc.createEvent();
    }

    void read_weights(const ANIForce& force) override {
        if (n == 0) return;
        ContextSelector selector(cc);
        arrays.at("rowWeights")->upload(packing->row_weights(force), true);
    }

    double execute(ContextImpl&, bool forces, bool energy) override {
        if (contexts.size() == 1) start(forces, energy);
        return 0.0;  // It is in the energy buffer.
    }

    void atom_energies(std::vector<double>& result) override {
        result.clear();
        if (n == 0) return;
        ContextSelector selector(cc);
        std::vector<double> rows;
        arrays.at("energies")->download(rows, true);
        for (int m = 0; m < members; ++m)
            for (const int row : packing->row_of_centre) result.push_back(rows[m * n + row]);
    }

   private:
    // Where forces wait for their end. With several devices OpenMM clears the buffers of each in a thread of its own,
    // and a kernel launched by execute() could run before that: there all is launched here.
    struct PostComputation : public ComputeContext::ForcePostComputation {
        PostComputation(CommonANIKernel& kernel, int group) : kernel(kernel), group(group) {}
        double computeForceAndEnergy(bool forces, bool energy, int groups) override {
            if (kernel.contexts.size() == 1)
                kernel.finish();
            else if (groups & (1 << group))
                kernel.launch(forces, energy);
            return 0.0;
        }
        CommonANIKernel& kernel;
        int group;
    };

    int local_memory() const { return opencl ? kLeastLocalMemory : kLocalMemory; }
    int real_size() const { return twofold ? sizeof(double) : sizeof(float); }
    int mixed_size() const { return wide ? sizeof(double) : sizeof(float); }

    // Rows of tiles, columns and threads: many where there is work for them, as many as local memory has room for.
    void choose_groups(const ANIForce& force, int centres) {
        int widths = 0, widest = 0;
        for (const ElementWeights& networks : force.committee->networks) {
            int sum = 0;
            for (const int width : networks.widths) sum += (width + 31) / 32 * 32, widest = std::max(widest, width);
            widths = std::max(widths, sum);
        }
        const bool few = centres <= kFewCentres;
        others_group = few && !opencl ? 512 : 256;
        const int tasks = std::max(others_group / 32, (widest + 31) / 32);
        const auto fits = [&](int numbers) { return numbers * real_size() <= local_memory(); };
        rows = few ? 4 : 8, tile_rows = 8, most_columns = few ? 1 : 5, tile_steps = few ? 4 : 2;
        while (rows > 1 && !fits(rows * (widths + tasks * 32 + 1))) rows /= 2;
        while (most_columns > 1 && !fits(kNetworkGroup * tile_rows * most_columns)) --most_columns;
        while (tile_rows > 1 && !fits(kNetworkGroup * tile_rows * most_columns)) tile_rows /= 2;
        force_group = few ? 128 : 64, force_shares = few ? 8 : 4;
    }

    // Blocks of 32 columns of a matrix that a warp takes: as many as it may, of those that leave least idle.
    int columns_of(int width) const {
        int best = 1;
        const auto all = [&](int columns) { return (width / 32 + columns - 1) / columns * columns; };
        for (int columns = 2; columns <= most_columns; ++columns)
            if (all(columns) <= all(best)) best = columns;
        return best;
    }

    ArrayInterface& array(const std::string& name, size_t size, int element_size) {
        std::unique_ptr<ArrayInterface>& made = arrays[name];
        made.reset(cc.createArray());
        made->initialize(cc, std::max<size_t>(size, 1), element_size, "ani_" + name);
        return *made;
    }
    void integers(const std::string& name, std::vector<int> values) {
        if (values.empty()) values.push_back(0);
        array(name, values.size(), sizeof(int)).upload(values);
    }
    void numbers(const std::string& name, std::vector<double> values, bool mixed = false) {
        if (values.empty()) values.push_back(0.0);
        array(name, values.size(), mixed ? mixed_size() : real_size()).upload(values, true);
    }

    void make_arrays() {
        const Packing& p = *packing;
        integers("particles", p.particles), integers("capParticles", p.cap_particles);
        integers("centres", p.centres), integers("speciesStart", p.species_start), integers("widths", p.widths);
        integers("tiles", p.tiles), integers("largeTiles", p.large_tiles);
        integers("status", {0});
        integers("starts", std::vector<int>(2 * n * (p.species_start.size() + 1), 0));
        numbers("capDistances", p.cap_distances, true), numbers("constants", p.constants);
        numbers("first", p.first), numbers("firstBack", p.first_back), numbers("firstBias", p.first_bias);
        numbers("others", p.others), numbers("last", p.last);
        numbers("rowWeights", std::vector<double>(n, 0.0)), numbers("poison", std::vector<double>(n, 0.0));
        // Its padding stays zero.
        numbers("functions", std::vector<double>(static_cast<size_t>(n) * p.functions, 0.0));
        array("slopes", static_cast<size_t>(members) * n * p.functions, real_size());
        array("hidden", static_cast<size_t>(members) * n * p.most[0], real_size());
        array("energies", static_cast<size_t>(members) * n, real_size());
        array("capForces", 3 * p.cap_distances.size(), sizeof(long long))
            .upload(std::vector<long long>(std::max<size_t>(3 * p.cap_distances.size(), 1), 0));
        // One place for every other atom, so that no list can be too short, as long as they are small.
        const int all = std::max(1, n_atoms - 1);
        const size_t entry = 2 * (6 * real_size() + sizeof(int));
        whole = static_cast<size_t>(n) * all * entry <= kWholeLists;
        make_lists("radial", radial_room, whole ? all : std::min(all, 128));
        make_lists("angular", angular_room, whole ? all : std::min(all, 64));
        // What is final is on the device.
        std::vector<double>().swap(packing->first), std::vector<double>().swap(packing->first_back);
        std::vector<double>().swap(packing->others);
    }

    void make_lists(const std::string& name, int& room, int wanted) {
        room = wanted;
        const size_t size = static_cast<size_t>(n) * room;
        if (arrays.count(name)) {
            for (const char* kind : {"", "Cut", "Atom"}) arrays.at(name + kind)->resize(size);
            return;
        }
        array(name, size, 4 * real_size()), array(name + "Cut", size, 2 * real_size());
        array(name + "Atom", size, sizeof(int));
    }

    void compile() {
        std::map<std::string, std::string> defines = packing->defines;
        const int most_functions = std::stoi(defines["MOST_FUNCTIONS"]);
        int group = 128;
        while (group > 32 && group * (most_functions + 1) * real_size() > local_memory()) group /= 2;
        symmetry_group = group, pair_blocks = std::stoi(defines["NUM_BLOCKS"]);
        int tasks = others_group / 32;
        for (const int width : packing->most) tasks = std::max(tasks, width / 32);
        defines["SEARCH_GROUP"] = std::to_string(kSearchGroup), defines["SYMMETRY_GROUP"] = std::to_string(group);
        const int whole_groups = (n_atoms + kSearchGroup - 1) / kSearchGroup * kSearchGroup;
        defines["SEARCH_CHUNK"] = std::to_string(std::min(kSearchChunk, whole_groups));
        defines["FORCE_GROUP"] = std::to_string(force_group), defines["FORCE_SHARES"] = std::to_string(force_shares);
        defines["NETWORK_GROUP"] = std::to_string(kNetworkGroup), defines["OTHERS_GROUP"] = std::to_string(others_group);
        defines["MOST_TASKS"] = std::to_string(tasks), defines["TILE_STEPS"] = std::to_string(tile_steps);
        first_columns = columns_of(packing->most[0]), back_columns = columns_of(packing->functions);
        defines["FIRST_COLUMNS"] = std::to_string(first_columns);
        defines["BACK_COLUMNS"] = std::to_string(back_columns);
        defines["MOST_COLUMNS"] = std::to_string(std::max(first_columns, back_columns));

        defines["PADDED_NUM_ATOMS"] = std::to_string(cc.getPaddedNumAtoms());
        const std::string source =
            std::string(kDeviceNeighbours) + kDeviceSymmetry + kDeviceNetworks + kDeviceForces;
        program = cc.compileProgram(source, defines);
    }

    ComputeKernel kernel(const std::string& name, int values, const std::vector<std::string>& names) {
        ComputeKernel made = program->createKernel(name);
        for (int i = 0; i < values; ++i) made->addArg();
        for (const std::string& array : names) {
            if (array == "posq")
                made->addArg(cc.getPosq());
            else if (array == "correction")  // It exists in mixed precision only, and is not used otherwise.
                made->addArg(cc.getUseMixedPrecision() ? cc.getPosqCorrection() : cc.getPosq());
            else if (array == "forces")
                made->addArg(cc.getLongForceBuffer());
            else if (array == "energyBuffer")
                made->addArg(cc.getEnergyBuffer());
            else
                made->addArg(*arrays.at(array));
        }
        return made;
    }

    // At the first evaluation: the buffers of forces and energy are made after initialize().
    void make_kernels() {
        find = kernel("findNeighbours", 6,
                      {"posq", "correction", "particles", "capParticles", "capDistances", "centres", "speciesStart",
                       "radial", "radialCut", "radialAtom", "angular", "angularCut", "angularAtom", "starts", "poison"});
        describe = kernel("symmetryFunctions", 2, {"radial", "radialCut", "angular", "angularCut", "starts", "poison",
                                                   "constants", "functions"});
        first = kernel("firstLayer", 0, {"largeTiles", "widths", "first", "firstBias", "functions", "hidden"});
        others = kernel("otherLayers", 2, {"tiles", "others", "last", "rowWeights", "hidden",
                                           "energies", "status", "energyBuffer"});
        back = kernel("firstLayerBack", 0, {"largeTiles", "widths", "firstBack", "hidden", "slopes"});
        push = kernel("addForces", 2, {"radial", "radialCut", "radialAtom", "angular", "angularCut", "angularAtom",
                                       "starts", "constants", "slopes", "particles", "centres", "capForces", "forces"});
        if (!packing->cap_distances.empty())
            spread = kernel("spreadCapForces", 3,
                            {"posq", "correction", "capParticles", "capDistances", "capForces", "forces"});
    }

    void set_real(ComputeKernel& kernel, int index, double value) {
        if (twofold)
            kernel->setArg(index, value);
        else
            kernel->setArg(index, static_cast<float>(value));
    }

    void set_box(ComputeKernel& kernel) {
        Vec3 box[3];  // Read every time: barostats change it.
        cc.getPeriodicBoxVectors(box[0], box[1], box[2]);
        for (int i = 0; i < 3; ++i) {
            if (wide)
                kernel->setArg(i, mm_double4(box[i][0], box[i][1], box[i][2], 0));
            else
                kernel->setArg(i, mm_float4(static_cast<float>(box[i][0]), static_cast<float>(box[i][1]),
                                            static_cast<float>(box[i][2]), 0));
        }
    }

    void search() {
        set_box(find);
        find->setArg(3, radial_room), find->setArg(4, angular_room);
        set_real(find, 5, std::nan(""));
        find->execute(n * kSearchGroup, kSearchGroup);
    }

    // Lists that were too short are made longer, and filled again.
    void make_room() {
        std::vector<int> starts;
        arrays.at("starts")->download(starts);
        const int stride = static_cast<int>(packing->species_start.size()) + 1;
        int most[2] = {0, 0};
        for (int i = 0; i < 2 * n; ++i) most[i % 2] = std::max(most[i % 2], starts[i * stride + stride - 1]);
        if (most[0] <= radial_room && most[1] <= angular_room) return;
        const int all = std::max(1, n_atoms - 1);
        if (most[0] > radial_room) make_lists("radial", radial_room, std::min(all, most[0] + most[0] / 4));
        if (most[1] > angular_room) make_lists("angular", angular_room, std::min(all, most[1] + most[1] / 4));
        search();
    }

    void launch(bool forces, bool energy) {
        if (n == 0) return;
        ContextSelector selector(cc);
        if (!find) make_kernels();
        search();
        if (!whole) make_room();
        for (ComputeKernel* k : {&describe, &push}) (*k)->setArg(0, radial_room), (*k)->setArg(1, angular_room);
        const int tiles = packing->tiles.size() / 3, large = packing->large_tiles.size() / 3;
        const auto blocks = [&](int width, int columns) {
            return large * members * ((width + 32 * columns - 1) / (32 * columns)) * kNetworkGroup;
        };
        describe->execute((n * pair_blocks + symmetry_group / 32 - 1) / (symmetry_group / 32) * symmetry_group,
                          symmetry_group);
        first->execute(blocks(packing->most[0], first_columns), kNetworkGroup);
        others->setArg(0, static_cast<int>(forces)), others->setArg(1, static_cast<int>(energy));
        others->execute(tiles * members * others_group, others_group);
        if (forces) {
            back->execute(blocks(packing->functions, back_columns), kNetworkGroup);
            push->execute(n * force_group, force_group);
            if (spread) {
                set_box(spread);
                spread->execute(static_cast<int>(packing->cap_distances.size()));
            }
        }
        // Looking waits for the device, which whoever asks for the energy does anyway.
        if (energy || ++evaluations % kLookEvery == 0) unseen = true;
        if (unseen && !beside) look();
    }

    // In a queue of its own, so that the kernels of one step that do not fill the device run side by side. Kernels of
    // OpenMM add energies to one buffer without atomics: nothing beside them where an energy is asked for.
    void start(bool forces, bool energy) {
        if (n == 0) return;
        ContextSelector selector(cc);
        if (beside) finish();
        if (energy || !whole || !find) return launch(forces, energy);
        ready->enqueue(), ready->queueWait(queue);
        const ComputeQueue before = Queues::current(cc);
        Queues::current(cc) = queue, beside = true;
        try {
            launch(forces, energy), done->enqueue();
        } catch (...) {
            Queues::current(cc) = before, beside = false;
            throw;
        }
        Queues::current(cc) = before;
    }

    void finish() {
        if (!beside) return;
        ContextSelector selector(cc);
        beside = false;
        done->queueWait(Queues::current(cc));
        if (unseen) look();
    }

    void look() {
        std::vector<int> status;
        unseen = false;
        arrays.at("status")->download(status);
        if (status[0] == 0) return;
        arrays.at("status")->upload(std::vector<int>{0});
        throw OpenMMException("Expected finite energies of the atoms of an ANIForce, but got NaN or infinity. Look at "
                              "the positions for atoms on top of each other, or use a smaller time step.");
    }

    std::vector<ComputeContext*> contexts;  // one for each device; all the work is done on the first
    ComputeContext& cc;
    bool opencl;
    std::vector<int> kinds;
    std::unique_ptr<Packing> packing;
    std::map<std::string, std::unique_ptr<ArrayInterface>> arrays;
    ComputeProgram program;
    ComputeKernel find, describe, first, others, back, push, spread;
    int n = 0, n_atoms = 0, members = 0, radial_room = 0, angular_room = 0, evaluations = 0, pair_blocks = 0;
    int rows = 8, tile_rows = 8, tile_steps = 2, most_columns = 1, first_columns = 1, back_columns = 1;
    int symmetry_group = 128, others_group = 256, force_group = 64, force_shares = 4;
    bool twofold = false, wide = false, periodic = false, whole = true;
    // Its kernels run beside others; an evaluation has not been looked at for what is no number.
    bool beside = false, unseen = false;
    ComputeQueue queue;
    ComputeEvent ready, done;
};

// OpenCLContext, CudaContext and HipContext are incomplete types here, since their headers want those of the vendors;
// ComputeContext is the single, first base class of each, so the pointer is the same.
template <class Data>
std::vector<ComputeContext*> contexts_of(ContextImpl& context) {
    std::vector<ComputeContext*> result;
    for (auto* c : static_cast<Data*>(context.getPlatformData())->contexts)
        result.push_back(reinterpret_cast<ComputeContext*>(c));
    return result;
}

}  // namespace

ANIKernel* make_common_kernel(const Platform& platform, ContextImpl& context) {
    if (platform.getName() == "OpenCL")
        return new CommonANIKernel(platform, contexts_of<OpenCLPlatform::PlatformData>(context));
    if (platform.getName() == "CUDA")
        return new CommonANIKernel(platform, contexts_of<CudaPlatform::PlatformData>(context));
    return new CommonANIKernel(platform, contexts_of<HipPlatform::PlatformData>(context));
}

}  // namespace mlmm
