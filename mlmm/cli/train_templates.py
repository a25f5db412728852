"""Files of a training to start from, by kind of model."""

from __future__ import annotations

__all__ = ["TEMPLATES"]

_NETWORKS = """[data]
labels = "labels.xyz"          # extended XYZ: energy in eV, forces in eV/Å, method, origin_run, origin_window

[model]
kind = "networks"              # or "message-passing", "gp", "gdml"; among point charges "qeq-ani", "amp-bms"
# base = "tblite:GFN2-xTB"     # learn the difference to a base instead

[networks]
start = "ani1x"                # fine-tune published networks; "scratch" for random ones
members = 4

[fit]
epochs = 150
energy_weight = "0.01 1/A^2"   # the strongest setting: small is better, for energies too
"""

_MESSAGE_PASSING = """[data]
labels = "labels.xyz"          # extended XYZ: energy in eV, forces in eV/Å, method, origin_run, origin_window

[model]
kind = "message-passing"       # PaiNN or TensorNet of the package graph-pes

[graph]
architecture = "painn"
channels = 32
layers = 3
cutoff = "0.5 nm"

[fit]
epochs = 300                   # from scratch: more, and larger steps, than for networks that are fine-tuned
batch = 6
learning_rate = 2e-3
energy_weight = "0.01 1/A^2"
"""

_FIELD_ANI = """[data]
labels = "set"                 # folder of a data set: one molecule among point charges

[model]
kind = "qeq-ani"               # ANI whose charges equilibrate in the potential of the surroundings
trained_on = "total"

[field]
start = "ani1x"                # the networks of the energy at the start

[fit]
epochs = 80
batch = 12
energy_weight = "0.003 1/A^2"  # small: the zero of energy is set once the forces are learned
"""

_AMP = """[data]
labels = "set"                 # folder of a data set: one molecule among point charges

[model]
kind = "amp-bms"               # AMP-BMS, fine-tuned
trained_on = "total"

[amp]
start = "amp-bms"
trained = "all"                # "last": only what reads the last messages

[fit]
epochs = 20                    # with 360 labels of 24 atoms some 200 s of one core
batch = 6
learning_rate = 1e-3
final_rate = 0.0
averaging = 0.99
clip = 100
energy_weight = "0.003 1/A^2"  # small: the zero of energy is set once the forces are learned
"""

#: By kind of model; those without an entry begin with that of networks.
TEMPLATES = {
    "networks": _NETWORKS,
    "message-passing": _MESSAGE_PASSING,
    "qeq-ani": _FIELD_ANI,
    "amp-bms": _AMP,
}
