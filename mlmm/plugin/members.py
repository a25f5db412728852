"""Energies and forces by each member of a committee, from a force of the plugin, for reports."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass

import numpy as np
import openmm

from mlmm.errors import PotentialError
from mlmm.plugin.ani_force import ANIForce
from mlmm.plugin.blend_force import AdaptiveANIForce, SupermolecularANIForce
from mlmm.plugin.committees import addresses
from mlmm.plugin.library import call, load_plugin, plugin_problem, pointer

__all__ = ["MemberEnergies", "MemberEvaluation", "as_force", "is_of_plugin"]


@dataclass(frozen=True)
class MemberEnergies:
    """By each member, at some positions.

    Parameters
    ----------
    particles : ndarray, shape (A,)
        Of the System; −1 for caps, and for a difference of whole energies.
    energies : ndarray, shape (members, A)
        Each times its weight, kJ/mol.
    acting : ndarray, shape (F,)
        Particles on which a force can act.
    forces : ndarray, shape (members, F, 3), optional
        Of the sums of these energies, kJ/mol/nm, the force of lambda included.
    """

    particles: np.ndarray
    energies: np.ndarray
    acting: np.ndarray
    forces: np.ndarray | None = None


class MemberEvaluation:
    """Evaluates a force as it is now, on the processor whatever the platform, without Context and torch.

    Parameters
    ----------
    force : ANIForce, AdaptiveANIForce or SupermolecularANIForce
    n_particles : int
        Of its System.
    threads : int
        At most.

    Raises
    ------
    openmm.OpenMMException
        Particles that are not in the System, or arrays that do not belong together.
    """

    def __init__(
        self,
        force: ANIForce | AdaptiveANIForce | SupermolecularANIForce,
        n_particles: int,
        threads: int = 1,
    ):
        self._held, self._busy = ctypes.c_void_p(), threading.Lock()
        place = pointer(force, openmm.Force)
        self.members, self.n_particles = force.getNumMembers(), n_particles
        self._release = load_plugin().mlmm_members_release
        call("mlmm_members_new", place, n_particles, int(threads), ctypes.byref(self._held))

    def __del__(self) -> None:
        if self._held:
            self._release(self._held)

    def __call__(
        self, positions: np.ndarray, box: np.ndarray | None = None, *, forces: bool = True
    ) -> MemberEnergies:
        """For positions (N, 3) and box vectors (3, 3) in nm; the box is ignored by a force without.

        Raises
        ------
        PotentialError
            Other shapes.
        openmm.OpenMMException
            No box, or one smaller than twice the cutoff.
        """
        where = np.ascontiguousarray(positions, dtype=np.float64)
        cell = None if box is None else np.ascontiguousarray(box, dtype=np.float64)
        if where.shape != (self.n_particles, 3) or (cell is not None and cell.shape != (3, 3)):
            raise PotentialError(
                f"positions of shape ({self.n_particles}, 3) and box vectors of shape (3, 3)",
                f"{where.shape} and {None if cell is None else cell.shape}",
                "pass those of the whole System",
            )
        counts = np.zeros(2, dtype=np.int64)
        rows = None if cell is None else cell.ctypes.data
        with self._busy:  # What was found waits in the library until it is taken.
            call(
                "mlmm_members_evaluate", self._held, *addresses(where), rows, int(forces), *addresses(counts)
            )
            n_atoms, n_acting = counts.tolist()
            particles, acting = np.zeros(n_atoms, dtype=np.int32), np.zeros(n_acting, dtype=np.int32)
            energies = np.zeros((self.members, n_atoms))
            found = np.zeros((self.members, n_acting, 3)) if forces else None
            taken = addresses(particles, energies, acting)
            load_plugin().mlmm_members_take(self._held, *taken, None if found is None else found.ctypes.data)
        return MemberEnergies(particles, energies, acting, found)


def is_of_plugin(force: openmm.Force) -> bool:
    """Whether a bare Force of a System is one of the plugin's, pairs without networks among them."""
    if plugin_problem() is not None:
        return False
    library, place = load_plugin(), pointer(force, openmm.Force)
    return bool(library.mlmm_plugin_is(place) or library.mlmm_blend_is(place))


def as_force(force: openmm.Force) -> ANIForce | AdaptiveANIForce | SupermolecularANIForce | None:
    """What a bare Force of a System is, where it is one of the plugin's; None without the plugin."""
    if plugin_problem() is not None:
        return None
    for kind in (ANIForce, AdaptiveANIForce, SupermolecularANIForce):
        try:
            found: ANIForce | AdaptiveANIForce | SupermolecularANIForce = kind.cast(force)
        except TypeError:
            continue
        return found
    return None
