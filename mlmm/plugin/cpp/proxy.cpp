// The force as XML: copies and pickles of a System, files, and construction from Python go through this.
#include <memory>

#include "ani_force.h"
#include "openmm/serialization/SerializationProxy.h"
#include "xml_numbers.h"

using namespace OpenMM;

namespace mlmm {

namespace {

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
        if (!force.committee->elements.empty()) write_committee(*force.committee, node.createChildNode("Committee"));
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
            if (child.getName() == "Committee") committee = read_committee(child);
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
