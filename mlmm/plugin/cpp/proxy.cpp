// The force as XML: copies and pickles of a System, files, and construction from Python go through this.
#include <cstring>
#include <memory>

#include "ani_force.h"
#include "openmm/serialization/SerializationNode.h"
#include "openmm/serialization/SerializationProxy.h"

using namespace OpenMM;

namespace mlmm {

namespace {

const char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Numbers as base64 of their little-endian float32, so that they come back bit for bit.
std::string encode(const std::vector<float>& values) {
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(values.data());
    const size_t n = values.size() * sizeof(float);
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

std::vector<float> decode(const std::string& text) {
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
            throw OpenMMException("Expected base64 in the weights of an ANIForce, but got another character. "
                                  "Write the XML file again.");
        word = word << 6 | digit, bits += 6;
        if (bits >= 8) bits -= 8, bytes.push_back(word >> bits & 255);
    }
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
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

void write(const Committee& committee, SerializationNode& node) {
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

std::shared_ptr<const Committee> read(const SerializationNode& node) {
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
            networks.weights.push_back(decode(layer.getStringProperty("weights")));
            networks.biases.push_back(decode(layer.getStringProperty("biases")));
        }
        committee->networks.push_back(std::move(networks));
    }
    committee->check();
    return shared(committee);
}

class ANIForceProxy : public SerializationProxy {
   public:
    ANIForceProxy() : SerializationProxy("ANIForce") {}

    // OpenMM passes a Force*, and casts what deserialize() returns to Force*.
    void serialize(const void* object, SerializationNode& node) const override {
        const ANIForce& force = *static_cast<const ANIForce*>(static_cast<const Force*>(object));
        node.setIntProperty("version", 1).setIntProperty("forceGroup", force.getForceGroup());
        node.setStringProperty("name", force.getName()).setBoolProperty("periodic", force.periodic);
        node.setStringProperty("precision", force.twofold ? "float64" : "float32");
        node.setIntProperty("threads", force.threads);
        if (!force.committee->elements.empty()) write(*force.committee, node.createChildNode("Committee"));
        SerializationNode& particles = node.createChildNode("Particles");
        for (const SeenParticle& p : force.particles)
            particles.createChildNode("Particle")
                .setIntProperty("p", p.particle)
                .setIntProperty("e", p.element)
                .setDoubleProperty("w", p.weight);
        SerializationNode& caps = node.createChildNode("Caps");
        for (const Cap& cap : force.caps)
            caps.createChildNode("Cap")
                .setIntProperty("outer", cap.outer)
                .setIntProperty("inner", cap.inner)
                .setIntProperty("e", cap.element)
                .setDoubleProperty("distance", cap.distance);
    }

    void* deserialize(const SerializationNode& node) const override {
        if (node.getIntProperty("version") != 1)
            throw OpenMMException("Expected version 1 of the XML of an ANIForce, but got " +
                                  std::to_string(node.getIntProperty("version")) + ". Install a newer mlmm.");
        std::shared_ptr<const Committee> committee = std::make_shared<Committee>();
        for (const SerializationNode& child : node.getChildren())
            if (child.getName() == "Committee") committee = read(child);
        auto force = std::make_unique<ANIForce>(committee);
        force->setForceGroup(node.getIntProperty("forceGroup", 0));
        force->setName(node.getStringProperty("name", "ANIForce"));
        force->periodic = node.getBoolProperty("periodic");
        force->twofold = node.getStringProperty("precision", "float32") == "float64";
        force->threads = node.getIntProperty("threads", 0);
        for (const SerializationNode& p : node.getChildNode("Particles").getChildren())
            force->particles.push_back({p.getIntProperty("p"), p.getIntProperty("e"), p.getDoubleProperty("w")});
        for (const SerializationNode& cap : node.getChildNode("Caps").getChildren())
            force->caps.push_back({cap.getIntProperty("outer"), cap.getIntProperty("inner"),
                                   cap.getDoubleProperty("distance"), cap.getIntProperty("e")});
        return static_cast<Force*>(force.release());
    }
};

}  // namespace

void register_proxy() { SerializationProxy::registerProxy(typeid(ANIForce), new ANIForceProxy()); }

}  // namespace mlmm
