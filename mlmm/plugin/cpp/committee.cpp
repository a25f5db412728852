#include "committee.h"

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "openmm/OpenMMException.h"

using OpenMM::OpenMMException;

namespace mlmm {

namespace {

// FNV-1a over words of eight bytes.
class Hash {
   public:
    void add(const void* data, size_t bytes) {
        const char* p = static_cast<const char*>(data);
        for (; bytes >= 8; p += 8, bytes -= 8) {
            uint64_t word;
            std::memcpy(&word, p, 8);
            mix(word);
        }
        uint64_t rest = 0;
        std::memcpy(&rest, p, bytes);
        mix(rest ^ (static_cast<uint64_t>(bytes) << 56));
    }
    template <class T>
    void add(const std::vector<T>& values) {
        mix(values.size());
        add(values.data(), values.size() * sizeof(T));
    }
    int64_t value() const { return static_cast<int64_t>((state_ ^ (state_ >> 29)) >> 1); }

   private:
    void mix(uint64_t word) {
        state_ = (state_ ^ word) * 0x100000001b3ULL;
        state_ ^= state_ >> 32;
    }
    uint64_t state_ = 0xcbf29ce484222325ULL;
};

bool finite(const std::vector<double>& values) {
    for (const double value : values)
        if (!std::isfinite(value)) return false;
    return true;
}

void check_networks(const ElementWeights& networks, const std::string& symbol, int members, int inputs) {
    const auto refuse = [&](const std::string& found) {
        throw OpenMMException("Expected finite weights (" + std::to_string(members) +
                              ", outputs, inputs) for each layer of " + symbol + ", but got " + found +
                              ". Get the file of the potential again.");
    };
    const size_t depth = networks.widths.size();
    if (networks.weights.size() != depth || networks.biases.size() != depth || networks.widths.back() != 1)
        refuse(std::to_string(networks.weights.size()) + " layers of weights for " + std::to_string(depth));
    size_t given = inputs;
    for (size_t k = 0; k < depth; ++k) {
        const size_t outputs = networks.widths[k], all = static_cast<size_t>(members) * outputs;
        if (networks.weights[k].size() != all * given || networks.biases[k].size() != all)
            refuse(std::to_string(networks.weights[k].size()) + " numbers in layer " + std::to_string(k));
        for (const auto* values : {&networks.weights[k], &networks.biases[k]})
            for (const float value : *values)
                if (!std::isfinite(value)) refuse("NaN or infinity in layer " + std::to_string(k));
        given = outputs;
    }
}

}  // namespace

int Committee::find(const std::string& symbol) const {
    for (size_t k = 0; k < elements.size(); ++k)
        if (elements[k] == symbol) return static_cast<int>(k);
    return -1;
}

int Committee::length_of_functions() const {
    const int n = static_cast<int>(elements.size());
    return n * radial() + n * (n + 1) / 2 * angular();
}

void Committee::check() const {
    const bool whole = !elements.empty() && networks.size() == elements.size() && members > 0 && radial() > 0 &&
                       eta_radial.size() == shift_radial.size() && eta_mean.size() == shift_mean.size() &&
                       zeta.size() == angle.size() && finite(eta_radial) && finite(shift_radial) &&
                       finite(eta_mean) && finite(shift_mean) && finite(zeta) && finite(angle) &&
                       radial_cutoff > 0 && std::isfinite(radial_cutoff) && angular_cutoff > 0 &&
                       angular_cutoff <= radial_cutoff && length > 0 && std::isfinite(length) && energy > 0 &&
                       std::isfinite(energy) && std::set<std::string>(elements.begin(), elements.end()).size() ==
                                                    elements.size();
    if (!whole)
        throw OpenMMException(
            "Expected elements, members and finite constants of ANI symmetry functions, but got none or some "
            "that are no numbers. Get the file of the potential again.");
    for (size_t k = 0; k < elements.size(); ++k)
        if (!networks[k].empty()) check_networks(networks[k], elements[k], members, length_of_functions());
}

int64_t Committee::number() const {
    Hash hash;
    for (size_t k = 0; k < elements.size(); ++k) {
        hash.add(elements[k].data(), elements[k].size());
        hash.add(networks[k].widths);
        for (const auto* layers : {&networks[k].weights, &networks[k].biases})
            for (const auto& layer : *layers) hash.add(layer);
    }
    const double scalars[] = {radial_cutoff, angular_cutoff, length, energy, static_cast<double>(members)};
    hash.add(scalars, sizeof scalars);
    for (const auto* list : {&eta_radial, &shift_radial, &eta_mean, &shift_mean, &zeta, &angle}) hash.add(*list);
    return hash.value();
}

std::shared_ptr<const Committee> shared(std::shared_ptr<const Committee> committee) {
    static std::mutex mutex;
    static auto* const known = new std::map<int64_t, std::weak_ptr<const Committee>>;
    const int64_t number = committee->number();
    std::lock_guard<std::mutex> lock(mutex);
    auto& entry = (*known)[number];
    if (auto there = entry.lock()) return there;
    entry = committee;
    return committee;
}

}  // namespace mlmm
