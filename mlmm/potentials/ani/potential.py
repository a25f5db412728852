"""ANI potentials: a committee by the contract of `base`, evaluated in torch or compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.kernels.library import requested_kernel
from mlmm.potentials.ani.fixed_shape import NEIGHBOUR_DENSITY, neighbour_room
from mlmm.potentials.ani.native import NativeANI, choose_kernel, has_one_output
from mlmm.potentials.ani.networks import SHAPES, ANINetworks
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.calibration import Calibration
from mlmm.potentials.spec import ShortOfSpec
from mlmm.potentials.training import check_elements
from mlmm.structures import Structure, neighbour_pairs
from mlmm.units import ANGSTROM, HARTREE

__all__ = ["ANIPotential"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class ANIPotential(ShortOfSpec):
    """A committee of ANI networks as a potential.

    Parameters
    ----------
    parameters : ANIParameters
    name, trained_on, level_of_theory, licence, citation : str
        See `PotentialSpec`.
    trained_charges, calibration
        The same.
    members : sequence of int, optional
        Use only these members; all by default.
    precision : {"float32", "float64"}
    device : str
        A torch device.
    kernel : {"auto", "torch", "native"}
        Where energies and gradients are evaluated: "native" on the processor, where the package was built
        with a C++ compiler; "auto" is that if possible, else torch, unless ``MLMM_KERNEL`` says which.
    shapes : {"auto", "fixed", "lists"}
        Lists of neighbours in torch: "fixed" in length, so that a GPU never waits for the host and a CUDA
        graph can hold them, or "lists" that are as long as they have to be; "auto" is fixed on a GPU.
    neighbour_density : float
        Atoms per nm³, around any single atom, for which lists of fixed length have room; the energy of a
        structure with more is NaN.
    """

    def __init__(
        self,
        parameters: ANIParameters,
        *,
        name: str,
        trained_on: str = "total",
        level_of_theory: str = "not stated",
        licence: str = "not stated",
        citation: str = "not stated",
        trained_charges: Sequence[int] = (0,),
        calibration: Calibration | None = None,
        members: Sequence[int] | None = None,
        precision: str = "float32",
        device: str = "cpu",
        kernel: str = "auto",
        shapes: str = "auto",
        neighbour_density: float = NEIGHBOUR_DENSITY,
    ):
        if shapes not in SHAPES:
            raise PotentialError(f"shapes = {' | '.join(SHAPES)}", repr(shapes), 'write shapes = "auto"')
        if not 0.0 < neighbour_density < math.inf:
            raise PotentialError(
                "a positive neighbour_density, atoms per nm³",
                str(neighbour_density),
                f"leave it at {NEIGHBOUR_DENSITY:g}",
            )
        if precision not in _DTYPES:
            raise PotentialError(
                'precision "float32" or "float64"', repr(precision), 'write precision = "float32"'
            )
        if members is not None:
            parameters = _choose_members(parameters, members)
        self.parameters = parameters
        self.device = torch.device(device)
        self.shapes, self.neighbour_density = shapes, float(neighbour_density)
        self.kernel = choose_kernel(kernel, parameters, self.device)
        #: Whether OpenMM's plugin may evaluate it: on any device, unless torch is asked for.
        self.in_openmm = requested_kernel(kernel) != "torch" and has_one_output(parameters)
        radial_cutoff = float(parameters.constants["Rcr"]) * ANGSTROM
        self.spec = PotentialSpec(
            name=name,
            elements=tuple(SYMBOLS.index(symbol) for symbol in parameters.elements),
            cutoff=radial_cutoff,
            receptive_field=radial_cutoff,
            trained_on=trained_on,
            members=parameters.members,
            reference_energies={
                SYMBOLS.index(symbol): float(energy) * HARTREE
                for symbol, energy in zip(parameters.elements, parameters.self_energies, strict=True)
            },
            # Symmetry functions know elements and places alone.
            trained_charges=tuple(trained_charges),
            calibration=calibration,
            precision=precision,
            level_of_theory=level_of_theory,
            licence=licence,
            citation=citation,
        )
        self._bound: tuple[tuple[int, ...], torch.nn.Module] | None = None

    def scriptable(self, numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
        """The potential bound to atomic numbers (and centres), as a module that TorchScript can compile."""
        check_elements(self.spec, numbers)
        networks = ANINetworks(
            self.parameters,
            numbers,
            _DTYPES[self.spec.precision],
            centres,
            shapes=self.shapes,
            neighbour_density=self.neighbour_density,
        )
        if self.kernel == "native":
            return NativeANI(networks, self.parameters, self.spec.precision).eval()
        return networks.to(self.device).eval()

    def check_room(self, structure: Structure, centres: Sequence[int]) -> None:
        """Make sure that lists of fixed length hold the neighbours of some atoms, with those of a structure.

        Raises
        ------
        PotentialError
            Names the density that there must be room for.
        """
        where = structure.positions.detach()
        for key in ("Rcr", "Rca"):
            cutoff = float(self.parameters.constants[key]) * ANGSTROM
            first, _, _ = neighbour_pairs(where, structure.cell, cutoff, torch.tensor(list(centres)))
            most = int(torch.bincount(first).max()) if len(first) else 0
            room = neighbour_room(cutoff, self.neighbour_density)
            if most > room:
                # Room for a quarter more, since atoms move.
                wanted = 10 * math.ceil(0.125 * self.neighbour_density * most / room)
                raise PotentialError(
                    f"at most {room} neighbours within {cutoff:g} nm of an atom on a GPU "
                    f"(neighbour_density = {self.neighbour_density:g} atoms per nm³)",
                    f"{most}",
                    "look for clashing atoms, or give load_potential, in Python, "
                    f"neighbour_density = {wanted}",
                )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies in kJ/mol, mean over the members, isolated-atom energies removed.

        Raises
        ------
        PotentialError
            An element that the networks do not know, or charges around.
        """
        if structure.external is not None:
            check_state(self.spec, structure)
        numbers = tuple(structure.numbers.tolist())
        # The last region is kept: dynamics asks for the same atoms at every step.
        if self._bound is None or self._bound[0] != numbers:
            self._bound = (numbers, self.scriptable(numbers))
        cell = None if structure.cell is None else structure.cell.to(self.device)
        members = self._bound[1](structure.positions.to(self.device), cell).to(structure.positions.device)
        return AtomEnergies(members.mean(dim=0), members)


def _choose_members(parameters: ANIParameters, members: Sequence[int]) -> ANIParameters:
    chosen = list(members)
    if not chosen or min(chosen) < 0 or max(chosen) >= parameters.members or len(set(chosen)) != len(chosen):
        raise PotentialError(
            f"different members between 0 and {parameters.members - 1}", str(chosen), "choose from that range"
        )
    return ANIParameters(
        parameters.elements,
        parameters.constants,
        parameters.self_energies,
        {element: [layer[chosen] for layer in layers] for element, layers in parameters.weights.items()},
        {element: [layer[chosen] for layer in layers] for element, layers in parameters.biases.items()},
    )
