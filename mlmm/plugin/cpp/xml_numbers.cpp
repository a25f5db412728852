#include "xml_numbers.h"

#include <algorithm>
#include <cstring>

using namespace OpenMM;

namespace mlmm {

namespace {

const char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Numbers as base64 of their little-endian bytes, so that they come back bit for bit.
template <class T>
std::string encoded(const std::vector<T>& values) {
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(values.data());
    const size_t n = values.size() * sizeof(T);
    std::string text;
    text.reserve((n + 2) / 3 * 4);
    for (size_t i = 0; i < n; i += 3) {
        const uint32_t word =
            bytes[i] << 16 | (i + 1 < n ? bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);
        text += kDigits[word >> 18];
        text += kDigits[word >> 12 & 63];
        text += i + 1 < n ? kDigits[word >> 6 & 63] : '=';
        text += i + 2 < n ? kDigits[word & 63] : '=';
    }
    return text;
}

template <class T>
std::vector<T> decoded(const std::string& text) {
    int place[256];
    std::fill(place, place + 256, -1);
    for (int k = 0; k < 64; ++k) place[static_cast<unsigned char>(kDigits[k])] = k;
    std::vector<unsigned char> bytes;
    bytes.reserve(text.size() / 4 * 3);
    uint32_t word = 0;
    int bits = 0;
    for (const char c : text) {
        if (c == '=') break;
        const int digit = place[static_cast<unsigned char>(c)];
        if (digit < 0)
            throw OpenMMException("Expected base64 in the XML of an ANI force, but got another character. "
                                  "Write the XML file again.");
        word = word << 6 | digit, bits += 6;
        if (bits >= 8) bits -= 8, bytes.push_back(word >> bits & 255);
    }
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
}

void write_pairs(SerializationNode& node, const char* list, const char* first, const std::vector<double>& a,
                 const char* second, const std::vector<double>& b) {
    SerializationNode& entries = node.createChildNode(list);
    for (size_t k = 0; k < a.size(); ++k)
        entries.createChildNode("Function").setDoubleProperty(first, a[k]).setDoubleProperty(second, b[k]);
}

void read_pairs(const SerializationNode& node, const char* list, const char* first, std::vector<double>& a,
                const char* second, std::vector<double>& b) {
    for (const SerializationNode& entry : node.getChildNode(list).getChildren())
        a.push_back(entry.getDoubleProperty(first)), b.push_back(entry.getDoubleProperty(second));
}

}  // namespace

std::string encode(const std::vector<float>& values) { return encoded(values); }
std::string encode(const std::vector<double>& values) { return encoded(values); }
std::string encode(const std::vector<int>& values) { return encoded(values); }

template <class T>
std::vector<T> decode(const std::string& text) {
    return decoded<T>(text);
}
template std::vector<float> decode<float>(const std::string& text);
template std::vector<double> decode<double>(const std::string& text);
template std::vector<int> decode<int>(const std::string& text);

void write_committee(const Committee& committee, SerializationNode& node) {
    node.setIntProperty("members", committee.members);
    node.setDoubleProperty("radialCutoff", committee.radial_cutoff);
    node.setDoubleProperty("angularCutoff", committee.angular_cutoff);
    node.setDoubleProperty("length", committee.length).setDoubleProperty("energy", committee.energy);
    write_pairs(node, "Radial", "eta", committee.eta_radial, "shift", committee.shift_radial);
    write_pairs(node, "Mean", "eta", committee.eta_mean, "shift", committee.shift_mean);
    write_pairs(node, "Angle", "zeta", committee.zeta, "angle", committee.angle);
    SerializationNode& elements = node.createChildNode("Elements");
    for (size_t e = 0; e < committee.elements.size(); ++e) {
        SerializationNode& element = elements.createChildNode("Element");
        element.setStringProperty("symbol", committee.elements[e]);
        const ElementWeights& networks = committee.networks[e];
        for (size_t k = 0; k < networks.widths.size(); ++k)
            element.createChildNode("Layer")
                .setIntProperty("width", networks.widths[k])
                .setStringProperty("weights", encode(networks.weights[k]))
                .setStringProperty("biases", encode(networks.biases[k]));
    }
}

std::shared_ptr<const Committee> read_committee(const SerializationNode& node) {
    auto committee = std::make_shared<Committee>();
    committee->members = node.getIntProperty("members");
    committee->radial_cutoff = node.getDoubleProperty("radialCutoff");
    committee->angular_cutoff = node.getDoubleProperty("angularCutoff");
    committee->length = node.getDoubleProperty("length"), committee->energy = node.getDoubleProperty("energy");
    read_pairs(node, "Radial", "eta", committee->eta_radial, "shift", committee->shift_radial);
    read_pairs(node, "Mean", "eta", committee->eta_mean, "shift", committee->shift_mean);
    read_pairs(node, "Angle", "zeta", committee->zeta, "angle", committee->angle);
    for (const SerializationNode& element : node.getChildNode("Elements").getChildren()) {
        committee->elements.push_back(element.getStringProperty("symbol"));
        ElementWeights networks;
        for (const SerializationNode& layer : element.getChildren()) {
            networks.widths.push_back(layer.getIntProperty("width"));
            networks.weights.push_back(decode<float>(layer.getStringProperty("weights")));
            networks.biases.push_back(decode<float>(layer.getStringProperty("biases")));
        }
        committee->networks.push_back(std::move(networks));
    }
    committee->check();
    return shared(committee);
}

}  // namespace mlmm
