// A zone that moves on a device, in single or double precision on differences of positions; as in adaptive_blend.cpp.
#include <algorithm>
#include <cmath>

#include "device_blend.h"
#include "device_pairs.h"
#include "device_terms.h"
#include "device_zone.h"
#include "like_molecules.h"

using namespace OpenMM;

namespace mlmm {

namespace {

constexpr int kZoneGroup = 32, kPairGroup = 64;

class AdaptiveOnDevice : public DeviceBlend {
   public:
    AdaptiveOnDevice(const Contexts& contexts, const Arrays& arrays, const ANIForce& whole)
        : DeviceBlend(contexts, whole, std::vector<int>(whole.particles.size(), 1)) {
        const std::vector<int>&core = arrays.particles("core"), &atoms = arrays.particles("molecule_atoms"),
                         &start = arrays.integers("molecule_start", 1, 0, 1 << 30);
        const std::vector<double> uniform = arrays.numbers("uniform", arrays.size("uniform"));
        n_molecules = static_cast<int>(start.size()) - 1, n_core = static_cast<int>(core.size());
        is_uniform = !uniform.empty();
        const double lambda = is_uniform ? uniform[0] : 0.0;
        std::vector<int> candidate_of(arrays.n_particles(), -1), molecule_of(arrays.n_particles(), -1), candidates;
        std::vector<double> weights(arrays.n_particles(), 0.0), of_candidates(networks.n_candidates(), 0.0);
        for (size_t k = 0; k < whole.particles.size(); ++k)
            candidate_of[whole.particles[k].particle] = networks.candidate(static_cast<int>(k));
        const auto weigh = [&](int atom, double weight) {
            weights[atom] = weight;
            if (candidate_of[atom] >= 0) of_candidates[candidate_of[atom]] = weight;
        };
        for (const int atom : core) weigh(atom, 1.0);
        for (const int atom : atoms) weigh(atom, lambda), candidates.push_back(candidate_of[atom]);
        for (int m = 0; m < n_molecules; ++m)
            for (int i = start[m]; i < start[m + 1]; ++i) molecule_of[atoms[i]] = m;
        networks.at("candidateWeights").upload(of_candidates, true), networks.numbers("weights", weights, true);
        networks.integers("moleculeOf", molecule_of), networks.integers("moleculeCandidates", candidates);
        networks.integers("moleculeStart", start), networks.integers("moleculeAtoms", atoms);
        networks.numbers("lambdas", std::vector<double>(n_molecules, lambda), true);
        networks.array("byLambda", n_molecules, sizeof(long long))
            .upload(std::vector<long long>(std::max(1, n_molecules), 0));
        networks.numbers("anchors", arrays.numbers("anchors", atoms.size()), true);
        read_zone(arrays), read_pairs(arrays, core, weights, molecule_of), read_terms(arrays);
        networks.add(std::string(kDeviceZone) + kDevicePairs + kDeviceTerms, defines);
        kinds = like_molecules(arrays);
    }

   private:
    void count(const std::string& name, size_t value) { defines[name] = std::to_string(value); }

    void read_zone(const Arrays& arrays) {
        const std::vector<int>& centres = arrays.particles("centres");
        const std::vector<double> zone = arrays.numbers("zone", 2);
        const std::vector<double> knots = arrays.numbers("knots", arrays.size("knots"));
        const size_t kinds = arrays.size("alignment"), each = knots.size();
        networks.integers("centreAtoms", centres);
        networks.integers("kinds", arrays.integers("kinds", 1, 0, static_cast<int>(kinds) - 1));
        networks.numbers("alignment", arrays.numbers("alignment", kinds), true), networks.numbers("knots", knots, true);
        networks.numbers("knotValues", arrays.numbers("values", kinds * each), true);
        networks.numbers("knotSlopes", arrays.numbers("slopes", kinds * each), true);
        count("NUM_MOLECULES", n_molecules), count("NUM_CENTRE_ATOMS", centres.size()), count("NUM_KNOTS", each);
        count("ZONE_GROUP", kZoneGroup);
        defines["PLATEAU"] = mixed(zone[0]), defines["WIDTH"] = mixed(zone[1]);
        if (is_uniform) defines["UNIFORM"] = "1";
    }

    void read_pairs(const Arrays& arrays, const std::vector<int>& core, const std::vector<double>& weights,
                    const std::vector<int>& molecule_of) {
        const int n = arrays.n_particles();
        const std::vector<int>& owned = arrays.particles("owned");
        std::vector<int> pair_atoms;
        for (const int atom : owned)
            if (weights[atom] != 0.0 || molecule_of[atom] >= 0) pair_atoms.push_back(atom);
        n_pair_atoms = static_cast<int>(pair_atoms.size());
        const std::vector<double> parameters = arrays.numbers("parameters", 3 * n);
        std::vector<double> padded(4 * n, 0.0);
        for (int i = 0; i < n; ++i) std::copy_n(&parameters[3 * i], 3, &padded[4 * i]);
        networks.array("parameters", n, 4 * networks.real_size());
        upload_vectors("parameters", padded);
        networks.integers("owned", owned), networks.integers("pairAtoms", pair_atoms), networks.integers("core", core);
        const int most = 1 << 30;
        networks.integers("specialStart", arrays.integers("special_start", 1, 0, most));
        networks.integers("specialOther", arrays.integers("special_other", 1, 0, most));
        networks.integers("coreStart", arrays.integers("core_special_start", 1, 0, most));
        networks.integers("coreOther", arrays.integers("core_special_other", 1, 0, most));
        count("NUM_OWNED", owned.size()), count("NUM_PAIR_ATOMS", pair_atoms.size()), count("NUM_CORE", core.size());
        count("PAIR_GROUP", kPairGroup), count("PAIRS_WRAP", arrays.numbers("pairs_periodic", 1)[0] != 0.0);
        const std::vector<double> ranges = arrays.numbers("ranges", 6), whole = arrays.numbers("core_ranges", 5);
        defines["R_ON"] = mixed(ranges[0]), defines["R_OFF"] = mixed(ranges[1]), defines["COULOMB"] = mixed(ranges[5]);
        if (ranges[2] != 0.0) {
            defines["FIELD_SWITCH_ON"] = mixed(ranges[3]);
            defines["FIELD_SWITCH_WIDTH"] = mixed(ranges[4] - ranges[3]);
        }
        if (!std::isfinite(whole[0])) return;
        defines["TWO_BY_ROOT_PI"] = mixed(1.12837916709551257390);
        defines["CORE_CUTOFF"] = mixed(whole[0]), defines["CORE_ALPHA"] = mixed(whole[1]);
        if (whole[2] != 0.0) {
            defines["CORE_SWITCH_ON"] = mixed(whole[3]);
            defines["CORE_SWITCH_WIDTH"] = mixed(whole[0] - whole[3]);
        }
    }

    void upload_vectors(const std::string& name, const std::vector<double>& values) {
        if (networks.twofold) {
            std::vector<mm_double4> rows(values.size() / 4);
            for (size_t i = 0; i < rows.size(); ++i)
                rows[i] = mm_double4(values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]);
            networks.at(name).upload(rows);
            return;
        }
        std::vector<mm_float4> rows(values.size() / 4);
        for (size_t i = 0; i < rows.size(); ++i)
            rows[i] = mm_float4(values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]);
        networks.at(name).upload(rows);
    }

    // Class by class, as device_terms.h reads them.
    void read_terms(const Arrays& arrays) {
        std::vector<int> atoms;
        std::vector<double> numbers;
        n_terms = 0;
        const auto put = [&](const std::string& name, size_t width, size_t each, const std::string& counted,
                             const std::string& place = "") {
            const std::vector<int>&own = arrays.particles(name + "_atoms", width),
                             &wraps = arrays.integers(name + "_wraps", 1, 0, 1);
            const std::vector<double>& values = arrays.numbers(name + "_numbers", wraps.size() * each);
            if (!place.empty()) {
                count("FIRST_" + place + "_ATOM", atoms.size());
                count("FIRST_" + place + "_NUMBER", numbers.size());
            }
            for (size_t t = 0; t < wraps.size(); ++t) {
                atoms.insert(atoms.end(), &own[width * t], &own[width * t] + width);
                atoms.push_back(wraps[t]);
            }
            numbers.insert(numbers.end(), values.begin(), values.end());
            count(counted, wraps.size());
            n_terms += static_cast<int>(wraps.size());
        };
        put("bond", 2, 2, "NUM_BONDS"), put("pair", 2, 3, "NUM_PAIRS"), put("core_pair", 2, 3, "NUM_CORE_PAIRS");
        put("angle", 3, 2, "NUM_BENDS", "BEND"), put("torsion", 4, 3, "NUM_TORSIONS", "TORSION");
        put("rb", 4, 6, "NUM_RBS"), put("cmap", 8, 8, "NUM_CMAPS", "CMAP");
        count("NUM_TERMS", n_terms);
        networks.integers("termAtoms", atoms), networks.numbers("termNumbers", numbers, true);
        networks.integers("cmapPlace", arrays.integers("cmap_place", 2, 0, 1 << 30));
        networks.numbers("cmapPatches", arrays.numbers("cmap_patches", arrays.size("cmap_patches")), true);
    }

    void make_kernels() override {
        const auto add = [&](const std::string& name, std::vector<std::string> arrays) {
            arrays.insert(arrays.begin(), {"posq", "correction"});
            return networks.kernel(name, name == "zoneWeights" ? 3 : 4, arrays);
        };
        if (!is_uniform)
            weigh = add("zoneWeights", {"moleculeStart", "moleculeAtoms", "anchors", "centreAtoms",
                                        "moleculeCandidates", "lambdas", "weights", "candidateWeights", "byLambda"});
        pairs = add("replacedPairs", {"owned", "pairAtoms", "parameters", "specialStart", "specialOther", "weights",
                                      "moleculeOf", "byLambda", "forces", "energyBuffer"});
        if (n_core > 1)
            in_core = add("corePairs", {"core", "parameters", "coreStart", "coreOther", "forces", "energyBuffer"});
        terms = add("replacedTerms", {"termAtoms", "termNumbers", "cmapPlace", "cmapPatches", "weights", "moleculeOf",
                                      "byLambda", "forces", "energyBuffer"});
        close = add("zoneForces", {"moleculeStart", "moleculeAtoms", "anchors", "centreAtoms", "moleculeCandidates",
                                   "rowOf", "energies", "lambdas", "byLambda", "kinds", "alignment", "knots",
                                   "knotValues", "knotSlopes", "forces", "energyBuffer"});
    }

    void run_kernel(ComputeKernel& kernel, bool energy, int threads, int group = -1) {
        networks.set_box(kernel), kernel->setArg(3, static_cast<int>(energy));
        kernel->execute(threads, group);
    }

    void launch_before() override {
        if (weigh && n_molecules > 0) networks.set_box(weigh), weigh->execute(n_molecules);
    }

    void launch_after(bool energy) override {
        if (n_pair_atoms > 0) run_kernel(pairs, energy, n_pair_atoms * kPairGroup, kPairGroup);
        if (in_core) run_kernel(in_core, energy, n_core * kPairGroup, kPairGroup);
        if (n_terms > 0) run_kernel(terms, energy, n_terms);
        if (n_molecules > 0) run_kernel(close, energy, n_molecules * kZoneGroup, kZoneGroup);
    }

    int n_molecules = 0, n_core = 0, n_pair_atoms = 0, n_terms = 0;
    bool is_uniform = false;
    std::map<std::string, std::string> defines;
    ComputeKernel weigh, pairs, in_core, terms, close;
};

}  // namespace

std::unique_ptr<DeviceBlend> adaptive_on_device(const Contexts& contexts, const Arrays& arrays,
                                                const BlendForce& force) {
    const int elements = static_cast<int>(force.committee->elements.size());
    const std::vector<int>&seen = arrays.particles("seen"), &element = arrays.integers("elements", 1, 0, elements - 1);
    std::vector<char> candidate(arrays.n_particles(), 0);
    for (const char* name : {"core", "molecule_atoms"})
        for (const int atom : arrays.particles(name)) candidate[atom] = 1;
    ANIForce whole(force.committee);
    whole.periodic = force.periodic;
    bool any = false;
    for (size_t k = 0; k < seen.size(); ++k) {
        whole.particles.push_back({seen[k], element[k], candidate[seen[k]] ? 1.0 : 0.0});
        any |= candidate[seen[k]] != 0;
    }
    if (!any) return nullptr;
    return std::make_unique<AdaptiveOnDevice>(contexts, arrays, whole);
}

}  // namespace mlmm
