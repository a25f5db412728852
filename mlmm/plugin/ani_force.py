"""`ANIForce`: the energy of ANI networks as an OpenMM Force, without torch and without Python in a step.

E = sum_i w_i eps_i, the mean over the members of a committee, without the energies of isolated atoms; Smith,
Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A. Method names follow OpenMM's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm

from mlmm.errors import PotentialError
from mlmm.plugin.committees import addresses, find_committee, give_networks, symbols_of
from mlmm.plugin.library import call, load_plugin, pointer, register_platforms

if TYPE_CHECKING:
    from mlmm.potentials.ani.neurochem import ANIParameters

__all__ = ["ANIForce"]

_MOST_PARTICLES = 2**31 - 1
_EMPTY = (
    '<Force type="ANIForce" version="1" periodic="{periodic}" precision="{precision}">'
    "<Particles/><Caps/></Force>"
)
_PRECISIONS = ("float32", "float64")


class ANIForce(openmm.Force):
    """sum_i w_i eps_i of some particles among all that the networks see, kJ/mol, by an ANI committee.

    A Force like OpenMM's own: it can be added to a System, copied, pickled and written to XML with its
    weights, and be evaluated on the platforms Reference, CPU, CUDA, HIP and OpenCL.

    Parameters
    ----------
    parameters : str or ANIParameters
        A committee: ``"ani1x"``, ``"ani2x"``, ``"ani1ccx"``, an ANI file or a folder in NeuroChem format; or
        the networks themselves.
    numbers : sequence of int
        Atomic numbers of the particles.
    particles : sequence of int, optional
        Their indices in the System; 0, 1, 2, … by default.
    weights : sequence of float, optional
        w of each of them, 1 by default. Those of weight 0 are neighbours of the others and cost no network.
    periodic : bool
        Whether distances are those of the nearest images.
    caps : sequence of (int, int, float)
        Hydrogens on bonds that are cut: the particle that stays, the one beyond, and the length of the bond
        to the hydrogen, nm.
    precision : {"float32", "float64"}
        Arithmetic of the networks on Reference and CPU; a GPU computes in that of its platform.
    threads : int
        Of the networks on Reference and CPU, at most one for 4 particles with weight; 0 for those of the
        platform CPU, and one on Reference. No number of them changes a bit of the result.

    Raises
    ------
    PotentialError
        A potential of another family, an element that it does not know, or arguments that do not fit.
    MissingPackageError
        The plugin was not built, or for another OpenMM.
    """

    def __init__(
        self,
        parameters: str | ANIParameters,
        numbers: Sequence[int],
        particles: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        *,
        periodic: bool = False,
        caps: Sequence[tuple[int, int, float]] = (),
        precision: str = "float32",
        threads: int = 0,
    ):
        register_platforms()
        if precision not in _PRECISIONS:
            raise PotentialError(
                f"precision = {' | '.join(_PRECISIONS)}", repr(precision), 'write precision = "float32"'
            )
        parameters = find_committee(parameters)
        symbols = symbols_of(parameters, [*numbers, *([1] if len(caps) else [])])
        places = np.arange(len(numbers)) if particles is None else np.asarray(particles)
        if places.size and (places.dtype.kind not in "iu" or np.abs(places).max() > _MOST_PARTICLES):
            raise PotentialError(
                f"particles as whole numbers up to {_MOST_PARTICLES:,}",
                f"{places.tolist()[:3]} …",
                "count the particles of the System from 0",
            )
        shares = np.ones(len(numbers)) if weights is None else np.asarray(weights, dtype=np.float64)
        if places.shape != (len(numbers),) or shares.shape != (len(numbers),):
            raise PotentialError(
                f"one particle and one weight for each of {len(numbers)} atomic numbers",
                f"{places.shape} and {shares.shape}",
                "give lists of the same length",
            )
        xml = _EMPTY.format(periodic=int(periodic), precision=precision)
        self.this = openmm.XmlSerializer.deserialize(xml).this
        call("mlmm_plugin_set_options", self._pointer, int(periodic), max(0, int(threads)))
        give_networks(self._pointer, parameters, set(symbols))
        elements = np.array([parameters.elements.index(s) for s in symbols[: len(numbers)]], dtype=np.int32)
        self._set(places, elements, shares)
        if len(caps):
            outer, inner = (np.ascontiguousarray([cap[k] for cap in caps], dtype=np.int32) for k in (0, 1))
            lengths = np.ascontiguousarray([cap[2] for cap in caps], dtype=np.float64)
            hydrogen = parameters.elements.index("H")
            call(
                "mlmm_plugin_set_caps", self._pointer, len(caps), *addresses(outer, inner, lengths), hydrogen
            )

    @classmethod
    def cast(cls, force: openmm.Force) -> ANIForce:
        """The ANIForce behind what ``System.getForce(i)`` returns, a bare Force.

        Raises
        ------
        TypeError
            Another kind of force.
        """
        if not load_plugin().mlmm_plugin_is(pointer(force, openmm.Force)):
            raise TypeError(f"Expected an ANIForce, but got {force.getName()!r}. Look for one in the System.")
        result = cls.__new__(cls)
        result.this = force.this
        return result

    def __deepcopy__(self, memo: Any) -> ANIForce:
        return self.cast(super().__deepcopy__(memo))

    @property
    def _pointer(self) -> int:
        return int(self.this)

    def _sizes(self) -> list[int]:
        sizes = np.zeros(6, dtype=np.int64)
        call("mlmm_plugin_sizes", self._pointer, *addresses(sizes))
        return sizes.tolist()

    def _particles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = self.getNumParticles()
        found = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.int32), np.zeros(n)
        call("mlmm_plugin_get_particles", self._pointer, *addresses(*found))
        return found

    def _set(self, particles: np.ndarray, elements: np.ndarray, weights: np.ndarray) -> None:
        arrays = (
            np.ascontiguousarray(particles, dtype=np.int32),
            np.ascontiguousarray(elements, dtype=np.int32),
            np.ascontiguousarray(weights, dtype=np.float64),
        )
        call("mlmm_plugin_set_particles", self._pointer, len(particles), *addresses(*arrays))

    def getNumParticles(self) -> int:
        """Number of particles that the networks see."""
        return self._sizes()[0]

    def getNumCaps(self) -> int:
        """Number of hydrogens on cut bonds."""
        return self._sizes()[1]

    def getNumMembers(self) -> int:
        """Number of members of the committee."""
        return self._sizes()[2]

    def getPrecision(self) -> str:
        """Arithmetic of the networks on Reference and CPU."""
        return _PRECISIONS[self._sizes()[4]]

    def getParticles(self) -> np.ndarray:
        """Indices of the particles in the System, (n,)."""
        return self._particles()[0]

    def getElements(self) -> list[str]:
        """Symbols of the particles."""
        text = ctypes.create_string_buffer(4096)
        call("mlmm_plugin_symbols", self._pointer, text, len(text))
        symbols = text.value.decode().split()
        return [symbols[k] for k in self._particles()[1]]

    def getCaps(self) -> list[tuple[int, int, float]]:
        """Hydrogens on cut bonds: the particle that stays, the one beyond, the length in nm."""
        n = self.getNumCaps()
        found = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.int32), np.zeros(n)
        call("mlmm_plugin_get_caps", self._pointer, *addresses(*found))
        return list(zip(*(column.tolist() for column in found), strict=True))

    def getWeights(self) -> np.ndarray:
        """w of the particles, (n,)."""
        return self._particles()[2]

    def setWeights(self, weights: Sequence[float]) -> None:
        """Other w; in a Context that is there after `updateParametersInContext`.

        Raises
        ------
        PotentialError
            Another number of them.
        """
        particles, elements, _ = self._particles()
        shares = np.asarray(weights, dtype=np.float64)
        if shares.shape != particles.shape:
            raise PotentialError(
                f"{len(particles)} weights", str(shares.shape), "give one for each particle of the force"
            )
        self._set(particles, elements, shares)

    def usesPeriodicBoundaryConditions(self) -> bool:
        """Whether distances are those of the nearest images."""
        return bool(self._sizes()[3])

    def setUsesPeriodicBoundaryConditions(self, periodic: bool) -> None:
        """Whether distances are those of the nearest images; for Contexts that are made later."""
        call("mlmm_plugin_set_options", self._pointer, int(periodic), self._sizes()[5])

    def updateParametersInContext(self, context: openmm.Context) -> None:
        """Bring the weights into a Context whose System holds this very force; what is 0 stays 0.

        Raises
        ------
        openmm.OpenMMException
            Other particles than the Context has, weights that are no numbers, or a foreign Context.
        """
        call("mlmm_plugin_update", self._pointer, pointer(context, openmm.Context))

    def getMemberEnergies(self, context: openmm.Context) -> np.ndarray:
        """eps of each particle, and then each cap, by each member at the last evaluation, kJ/mol.

        Nothing is evaluated for it: after ``context.getState(energy=True)`` they belong to the positions of
        that state. Their spread over the members is the uncertainty of the committee.

        Returns
        -------
        ndarray, shape (members, n + caps)
            Not weighted; NaN for particles of weight 0.
        """
        particles, caps, members = self._sizes()[:3]
        energies = np.zeros((members, particles + caps))
        call(
            "mlmm_plugin_atom_energies",
            self._pointer,
            pointer(context, openmm.Context),
            energies.size,
            *addresses(energies),
        )
        return energies
