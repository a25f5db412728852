#include "device_force.h"

using namespace OpenMM;

namespace mlmm {

namespace {

// Evaluations between two looks at whether an energy was no number, where nobody asks for the energy.
constexpr int kLookEvery = 64;

// ComputeContext::setCurrentQueue is in the library of each platform, and this one links to none of them.
struct Queues : public ComputeContext {
    static ComputeQueue& current(ComputeContext& context) { return context.*&Queues::currentQueue; }
};

}  // namespace

// Where forces wait for their end. With several devices OpenMM clears the buffers of each in a thread of its own, and a
// kernel launched by execute() could run before that: there all is launched here.
struct DeviceForce::PostComputation : public ComputeContext::ForcePostComputation {
    PostComputation(DeviceForce& force, int group) : force(force), group(group) {}
    double computeForceAndEnergy(bool forces, bool energy, int groups) override {
        if (force.contexts.size() == 1) {
            ContextSelector selector(force.cc);
            force.finish((groups & (1 << group)) != 0);
        } else if (groups & (1 << group)) {
            ContextSelector selector(force.cc);
            force.run(forces, energy);
        }
        return 0.0;
    }
    DeviceForce& force;
    int group;
};

DeviceForce::DeviceForce(const std::vector<ComputeContext*>& contexts, const ANIForce& atoms,
                         const std::vector<int>& sides)
    : networks(*contexts[0], atoms, sides), contexts(contexts), cc(*contexts[0]), queue(cc.createQueue()),
      ready(cc.createEvent()), done(cc.createEvent()) {}

void DeviceForce::join_evaluations(int group) {
    cc.getPostComputations().push_back(new PostComputation(*this, group));
}

// The networks have a queue of their own, so that the kernels of one step that do not fill the device run side by side;
// with few atoms to tell the queues to wait for each other takes longer than that saves. Some kernels of OpenMM add
// energies and forces without atomics (RMSDForce, PME without a stream of its own): nothing is added beside them.
void DeviceForce::execute(bool forces, bool energy) {
    if (contexts.size() > 1) return;
    ContextSelector selector(cc);
    if (beside) wait();  // Another force has broken that evaluation off.
    if (energy || networks.is_small() || !networks.is_settled()) return run(forces, energy);
    ready->enqueue(), ready->queueWait(queue);
    const ComputeQueue before = Queues::current(cc);
    Queues::current(cc) = queue;
    try {
        launch_before(), networks.launch(forces, false), done->enqueue();
    } catch (...) {
        Queues::current(cc) = before;
        throw;
    }
    Queues::current(cc) = before, beside = true, wanted = forces;
}

void DeviceForce::run(bool forces, bool energy) {
    if (networks.prepare()) make_kernels();
    launch_before(), networks.launch(forces, energy), add_forces(forces, energy);
    if (!networks.had_room()) {
        // OpenMM evaluates anew.
        cc.setForcesValid(false);
        return;
    }
    look(energy);
}

void DeviceForce::finish(bool asked) {
    if (!beside) return;
    wait();
    if (!asked) return;  // They are of an evaluation that another force has broken off.
    add_forces(wanted, false);
    look(false);
}

void DeviceForce::add_forces(bool forces, bool energy) {
    if (forces) networks.push_forces();
    launch_after(energy);
}

void DeviceForce::wait() {
    beside = false;
    done->queueWait(Queues::current(cc));
}

// That waits for the device, which whoever asks for the energy does anyway.
void DeviceForce::look(bool energy) {
    if (!energy && ++evaluations % kLookEvery != 0) return;
    if (!networks.is_finite()) throw not_finite();
}

}  // namespace mlmm
