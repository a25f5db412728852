"""Field-aware ANI with random networks of the field: what a training would make, for tests."""

from __future__ import annotations

import dataclasses

import numpy as np

from mlmm.learning.training.field_model import start_field_parameters
from mlmm.learning.training.networks import start_parameters
from mlmm.learning.training.options import NetworkOptions
from mlmm.potentials.field_ani.parameters import FieldANIParameters
from mlmm.potentials.field_ani.potential import FieldANIPotential


def field_parameters(numbers, seed: int = 1) -> FieldANIParameters:
    """One network of ANI-1x for these elements, and networks of the field that matter."""
    ani = start_parameters(NetworkOptions(members=1), sorted(set(numbers)), seed)
    start = start_field_parameters(ani, (16,), seed)
    random = np.random.default_rng(seed)
    weights = {element: list(layers) for element, layers in start.weights.items()}
    constants = {}
    for k, element in enumerate(ani.elements):
        last = weights[element][-1]
        weights[element][-1] = (0.5 * random.standard_normal(last.shape)).astype(np.float32)
        # Electronegativity grows with the place in the list: H C N O.
        constants[element] = np.array([-0.4 * k, -0.5, -1.0, 0.5])
    return dataclasses.replace(start, weights=weights, constants=constants)


def field_potential(numbers, seed: int = 1, **options) -> FieldANIPotential:
    """The potential of `field_parameters`, float64."""
    options = {"precision": "float64", "name": "field-aware ANI", **options}
    return FieldANIPotential(field_parameters(numbers, seed), **options)
