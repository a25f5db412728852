"""ANI energies whose atoms change with the positions, as OpenMM Forces: adaptive and supermolecular.

Both are one C++ force that runs on the platform itself, on the processor or on a GPU, without torch and
without Python in a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm

from mlmm.errors import PotentialError
from mlmm.plugin.committees import addresses, find_committee, give_networks, symbols_of
from mlmm.plugin.library import call, load_plugin, pointer, register_platforms

if TYPE_CHECKING:
    from mlmm.kernels.direct_pairs import RegionPairs, ZonePairs
    from mlmm.potentials.ani.neurochem import ANIParameters

__all__ = ["AdaptiveANIForce", "SupermolecularANIForce", "pair_force"]

_EMPTY = (
    '<Force type="ANIBlendForce" version="1" kind="{kind}" periodic="{periodic}" precision="{precision}"'
    ' threads="{threads}"><Integers/><Numbers/></Force>'
)
_PRECISIONS = ("float32", "float64")


class _BlendForce(openmm.Force):
    """What both have in common; made by the subclasses."""

    #: Of the C++ force.
    kind = ""

    def _create(
        self,
        parameters: ANIParameters | None,
        symbols: set[str],
        *,
        periodic: bool,
        precision: str = "float32",
        threads: int = 0,
        integers: Mapping[str, Any],
        numbers: Mapping[str, Any],
    ) -> None:
        register_platforms()
        if precision not in _PRECISIONS:
            raise PotentialError(
                f"precision = {' | '.join(_PRECISIONS)}", repr(precision), 'write precision = "float32"'
            )
        xml = _EMPTY.format(
            kind=self.kind, periodic=int(periodic), precision=precision, threads=max(0, int(threads))
        )
        self.this = openmm.XmlSerializer.deserialize(xml).this
        if parameters is not None:
            give_networks(int(self.this), parameters, symbols)
        for name, value in integers.items():
            array = np.ascontiguousarray(value, dtype=np.int32).ravel()
            call("mlmm_blend_set_integers", int(self.this), name.encode(), len(array), *addresses(array))
        for name, value in numbers.items():
            column = np.ascontiguousarray(value, dtype=np.float64).ravel()
            call("mlmm_blend_set_numbers", int(self.this), name.encode(), len(column), *addresses(column))

    @classmethod
    def cast(cls, force: openmm.Force) -> Any:
        """The force behind what ``System.getForce(i)`` returns, a bare Force.

        Raises
        ------
        TypeError
            Another kind of force.
        """
        library = load_plugin()
        if (
            not library.mlmm_blend_is(pointer(force, openmm.Force))
            or library.mlmm_blend_kind(int(force.this)).decode() != cls.kind
        ):
            raise TypeError(
                f"Expected {cls.__name__}, but got {force.getName()!r}. Look for one in the System."
            )
        result = cls.__new__(cls)
        result.this = force.this
        return result

    def __deepcopy__(self, memo: Any) -> Any:
        return self.cast(super().__deepcopy__(memo))

    def _sizes(self) -> list[int]:
        sizes = np.zeros(4, dtype=np.int64)
        call("mlmm_blend_sizes", int(self.this), *addresses(sizes))
        return sizes.tolist()

    def _array(self, name: str, kind: str) -> np.ndarray:
        n, function = np.zeros(1, dtype=np.int64), f"mlmm_blend_get_{kind}"
        call(function, int(self.this), name.encode(), *addresses(n), None)
        values = np.zeros(int(n[0]), dtype=np.int32 if kind == "integers" else np.float64)
        call(function, int(self.this), name.encode(), *addresses(n, values))
        return values

    def getNumMembers(self) -> int:
        """Number of members of the committee."""
        return self._sizes()[0]

    def usesPeriodicBoundaryConditions(self) -> bool:
        """Whether distances are those of the nearest images."""
        return bool(self._sizes()[1])

    def getPrecision(self) -> str:
        """Arithmetic of the networks on Reference and CPU, where all else is float64."""
        return _PRECISIONS[self._sizes()[2]]

    def getParticles(self) -> np.ndarray:
        """Indices in the System of the particles that the networks see, (n,)."""
        return self._array("seen", "integers")


class _PairForce(_BlendForce):
    """Minus force-field pairs that a potential takes over, kJ/mol; see `mlmm.kernels.direct_pairs`."""

    def __init__(self, periodic: bool, integers: Mapping[str, Any], numbers: Mapping[str, Any]):
        self._create(None, set(), periodic=periodic, integers=integers, numbers=numbers)


class _RegionPairForce(_PairForce):
    kind = "region_pairs"


class _ZonePairForce(_PairForce):
    kind = "zone_pairs"


def pair_force(pairs: RegionPairs | ZonePairs) -> openmm.Force:
    """The pairs of a hybrid system as a force without Python in a step.

    Parameters
    ----------
    pairs : RegionPairs or ZonePairs

    Raises
    ------
    MissingPackageError
        The plugin was not built, or for another OpenMM.
    """
    integers = {"atoms": pairs.atoms, "special_start": pairs.start, "special_other": pairs.other}
    numbers = {"parameters": pairs.parameters, "ranges": pairs.ranges}
    force: _PairForce
    own: Any = pairs
    if hasattr(pairs, "weights"):
        integers, numbers = integers | {"active": own.active}, numbers | {"weights": own.weights}
        force = _ZonePairForce(pairs.periodic, integers, numbers)
    else:
        force = _RegionPairForce(pairs.periodic, integers, numbers)
    force.setName(pairs.name)
    return force


class AdaptiveANIForce(_BlendForce):
    """A zone that moves: sum_i lambda_i (eps_i^ANI − eps_i^MM) − sum_m [lambda_m a + G(lambda_m)], kJ/mol.

    lambda of a molecule m falls from 1 to 0 with its distance from some centres as in
    `mlmm.zones.adaptive.AdaptiveWeights`; the force −dE/dlambda dlambda/dr acts on both. eps_i^MM are the
    energies of the force-field terms that the networks replace. `mlmm.hybrid.adaptive_arrays` makes the
    arrays of a hybrid system; they are checked when a Context is made.

    Parameters
    ----------
    parameters : str or ANIParameters
        As for `ANIForce`.
    numbers, particles : sequence of int
        Atomic numbers and indices in the System of what the networks see.
    integers, numbers_by_name : mapping of str to array
        The zone, the force-field terms and the compensation under the names of ``cpp/adaptive_blend.cpp``.
    periodic, precision, threads
        As for `ANIForce`; a GPU computes in the precision of its platform.

    Raises
    ------
    PotentialError
        A potential of another family, or an element that it does not know.
    MissingPackageError
        The plugin was not built, or for another OpenMM.
    """

    kind = "adaptive"

    def __init__(
        self,
        parameters: str | ANIParameters,
        numbers: Sequence[int],
        particles: Sequence[int],
        integers: Mapping[str, Any],
        numbers_by_name: Mapping[str, Any],
        *,
        periodic: bool = False,
        precision: str = "float32",
        threads: int = 0,
    ):
        found = find_committee(parameters)
        symbols = symbols_of(found, numbers)
        places = [found.elements.index(symbol) for symbol in symbols]
        self._create(
            found,
            set(symbols),
            periodic=periodic,
            precision=precision,
            threads=threads,
            integers={"seen": particles, "elements": places} | dict(integers),
            numbers=numbers_by_name,
        )


class SupermolecularANIForce(_BlendForce):
    """E_ANI(all) − E_ANI(all but a region, with hydrogen caps on the bonds that it cuts), kJ/mol.

    Only atoms whose energy differs are evaluated: those of the region, and those within the networks' cutoff
    of it or of a cap, in two passes.

    Parameters
    ----------
    parameters : str or ANIParameters
        As for `ANIForce`.
    numbers, particles : sequence of int
        Atomic numbers and indices in the System of all that the networks see.
    region : sequence of int
        Particles among them that the second pass leaves out.
    caps : sequence of (int, int, float)
        Cut bonds: the particle outside, which keeps a hydrogen, that inside, and the length of the bond to
        the hydrogen, nm.
    periodic, precision, threads
        As for `ANIForce`; a GPU computes in the precision of its platform.

    Raises
    ------
    PotentialError
        A potential of another family, an element that it does not know, or a region without particles.
    MissingPackageError
        The plugin was not built, or for another OpenMM.
    """

    kind = "supermolecular"

    def __init__(
        self,
        parameters: str | ANIParameters,
        numbers: Sequence[int],
        particles: Sequence[int],
        region: Sequence[int],
        *,
        caps: Sequence[tuple[int, int, float]] = (),
        periodic: bool = False,
        precision: str = "float32",
        threads: int = 0,
    ):
        found = find_committee(parameters)
        symbols = symbols_of(found, [*numbers, *([1] if len(caps) else [])])
        inside = np.isin(particles, list(region))
        if len(particles) != len(numbers) or not inside.any():
            raise PotentialError(
                "an atomic number for each particle, and a region among them",
                f"{len(numbers)} numbers, {len(particles)} particles, {int(inside.sum())} in the region",
                "select the atoms again",
            )
        places = [found.elements.index(symbol) for symbol in symbols[: len(numbers)]]
        self._create(
            found,
            set(symbols),
            periodic=periodic,
            precision=precision,
            threads=threads,
            integers={
                "seen": particles,
                "elements": places,
                "inside": inside,
                "hydrogen": [found.elements.index("H") if "H" in found.elements else 0],
                "caps": [cap[:2] for cap in caps],
            },
            numbers={"cap_distances": [cap[2] for cap in caps]},
        )

    def getRegion(self) -> np.ndarray:
        """Particles that the second pass leaves out."""
        return self.getParticles()[self._array("inside", "integers") != 0]

    def getCaps(self) -> list[tuple[int, int, float]]:
        """Cut bonds: the particle outside, that inside, the length to the hydrogen in nm."""
        bonds = self._array("caps", "integers").reshape(-1, 2).tolist()
        lengths = self._array("cap_distances", "numbers").tolist()
        return [(a, b, length) for (a, b), length in zip(bonds, lengths, strict=True)]
