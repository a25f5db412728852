// A BlendForce as XML: its arrays by name, bit for bit.
#include <memory>

#include "blend_force.h"
#include "openmm/serialization/SerializationProxy.h"
#include "xml_numbers.h"

using namespace OpenMM;

namespace mlmm {

namespace {

template <class T>
void write_arrays(SerializationNode& node, const std::map<std::string, std::vector<T>>& arrays) {
    for (const auto& array : arrays)
        node.createChildNode("Array")
            .setStringProperty("name", array.first)
            .setStringProperty("values", encode(array.second));
}

template <class T>
void read_arrays(const SerializationNode& node, std::map<std::string, std::vector<T>>& arrays) {
    for (const SerializationNode& array : node.getChildren())
        arrays[array.getStringProperty("name")] = decode<T>(array.getStringProperty("values"));
}

class BlendForceProxy : public SerializationProxy {
   public:
    BlendForceProxy() : SerializationProxy("ANIBlendForce") {}

    // OpenMM passes a Force*, and casts what deserialize() returns to Force*.
    void serialize(const void* object, SerializationNode& node) const override {
        const BlendForce& force = *static_cast<const BlendForce*>(static_cast<const Force*>(object));
        node.setIntProperty("version", 1).setIntProperty("forceGroup", force.getForceGroup());
        node.setStringProperty("name", force.getName()).setBoolProperty("periodic", force.periodic);
        node.setStringProperty("kind", force.kind).setIntProperty("threads", force.threads);
        node.setStringProperty("precision", force.twofold ? "float64" : "float32");
        if (!force.committee->elements.empty()) write_committee(*force.committee, node.createChildNode("Committee"));
        write_arrays(node.createChildNode("Integers"), force.integers);
        write_arrays(node.createChildNode("Numbers"), force.numbers);
    }

    void* deserialize(const SerializationNode& node) const override {
        if (node.getIntProperty("version") != 1)
            throw OpenMMException("Expected version 1 of the XML of an ANIBlendForce, but got " +
                                  std::to_string(node.getIntProperty("version")) + ". Install a newer mlmm.");
        std::shared_ptr<const Committee> committee = std::make_shared<Committee>();
        for (const SerializationNode& child : node.getChildren())
            if (child.getName() == "Committee") committee = read_committee(child);
        auto force = std::make_unique<BlendForce>(committee, node.getStringProperty("kind"));
        force->setForceGroup(node.getIntProperty("forceGroup", 0));
        force->setName(node.getStringProperty("name", "ANIBlendForce"));
        force->periodic = node.getBoolProperty("periodic");
        force->twofold = node.getStringProperty("precision", "float32") == "float64";
        force->threads = node.getIntProperty("threads", 0);
        read_arrays(node.getChildNode("Integers"), force->integers);
        read_arrays(node.getChildNode("Numbers"), force->numbers);
        return static_cast<Force*>(force.release());
    }
};

}  // namespace

void register_blend_proxy() { SerializationProxy::registerProxy(typeid(BlendForce), new BlendForceProxy()); }

}  // namespace mlmm
