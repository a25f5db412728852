"""Who owns which interaction: the share W_t of every force-field term that a potential takes over.

A term t keeps (1 − W_t) of its energy in the force field. W_t follows from the weights lambda of its atoms
by the rule of the scheme. Nothing else decides it: the force field (`scale_terms`), the blend
(`replaced_terms`) and the check of `double_counting` all ask here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlmm.errors import ConfigError
from mlmm.schemes import SCHEMES, Scheme

__all__ = ["CappedRegion", "TermWeights", "cmap_shares", "make_term_weights"]


@dataclass(frozen=True)
class CappedRegion:
    """The atoms that scheme ``supermolecular`` leaves out of its second pass.

    Parameters
    ----------
    atoms : frozenset of int
    caps : tuple of (int, int)
        Bonds that it cuts: the atom outside, which keeps a hydrogen cap, and the atom inside.
    """

    atoms: frozenset[int]
    caps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class TermWeights:
    """Rules and weights of one hybrid system.

    Parameters
    ----------
    scheme : str
        A key of `mlmm.schemes.SCHEMES`.
    weights : ndarray, shape (N,)
        lambda of every atom.
    visible : ndarray, shape (N,), bool
        Atoms whose terms may be replaced: those that the potential sees, and virtual sites on them.
    switching : tuple of (float, float) or None
        r_on and r_off of the pairs, nm; None hands over pairs at every distance.
    caps : tuple of (int, int)
        Of scheme ``supermolecular``: see `CappedRegion`.
    """

    scheme: str
    weights: np.ndarray
    visible: np.ndarray
    switching: tuple[float, float] | None
    caps: tuple[tuple[int, int], ...] = ()

    @property
    def active(self) -> np.ndarray:
        """Atoms with lambda > 0, sorted."""
        return np.flatnonzero(self.weights > 0)

    @property
    def rules(self) -> Scheme:
        """Rules of the scheme."""
        return SCHEMES[self.scheme]

    def bonded(self, atoms: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
        """W_t of bonded terms.

        Parameters
        ----------
        atoms : ndarray, shape (T, n)
        shares : ndarray, shape (T, n), optional
            Of each atom in its term, adding up to 1; equal ones by default.

        Returns
        -------
        ndarray, shape (T,)
        """
        return self._fractions(atoms, self.rules.bonded, shares)

    def one_four(self, atoms: np.ndarray) -> np.ndarray:
        """W_t of pairs with parameters of their own, before the switching function; (T, 2) -> (T,)."""
        return self._fractions(atoms, self.rules.one_four, None)

    def pairs(self, atoms: np.ndarray) -> np.ndarray:
        """W_t of all other pairs, before the switching function; (T, 2) -> (T,)."""
        return self._fractions(atoms, self.rules.pairs, None)

    def _fractions(self, atoms: np.ndarray, rule: str, shares: np.ndarray | None) -> np.ndarray:
        atoms = np.asarray(atoms, dtype=np.int64)
        lam = self.weights[atoms]
        if rule == "none":
            fractions = np.zeros(len(atoms))
        elif rule == "all":
            fractions = lam.min(axis=1)
        elif rule == "share":
            fractions = lam.mean(axis=1) if shares is None else (shares * lam).sum(axis=1)
        else:
            fractions = np.where(self._same_with_caps(atoms), 0.0, lam.max(axis=1))
        return np.where(self.visible[atoms].all(axis=1), fractions, 0.0)

    def _same_with_caps(self, atoms: np.ndarray) -> np.ndarray:
        """Terms with one atom inside, whose cap takes part in them as that atom does, (T,) bool."""
        if not self.caps or atoms.shape[1] <= 2:
            return np.zeros(len(atoms), dtype=bool)
        capped = np.zeros(len(atoms), dtype=np.int64)
        for outer, inner in self.caps:
            capped += (atoms == outer).any(axis=1) & (atoms == inner).any(axis=1)
        # X–A–B with B alone inside: the capped rest has X–A–H, so that the potential's two passes cancel.
        return ((self.weights[atoms] > 0).sum(axis=1) == 1) & (capped == 1)


def make_term_weights(
    scheme: str,
    weights: np.ndarray,
    visible: np.ndarray,
    switching: tuple[float, float] | None,
    caps: tuple[tuple[int, int], ...] = (),
) -> TermWeights:
    """Check and make a `TermWeights`; parameters as there.

    Raises
    ------
    ConfigError
        An unknown scheme, weights outside 0 … 1, caps where lambda is between 0 and 1.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme = {' | '.join(SCHEMES)}", repr(scheme), 'write scheme = "per_atom"')
    weights = np.asarray(weights, dtype=np.float64)
    if not ((weights >= 0) & (weights <= 1 + 1e-12)).all():
        wrong = np.flatnonzero(~((weights >= 0) & (weights <= 1 + 1e-12)))[0]
        raise ConfigError("lambda from 0 to 1", f"{weights[wrong]:g} of atom {wrong}", "correct the weights")
    if caps and ((weights > 0) & (weights < 1)).any():
        wrong = int(np.flatnonzero((weights > 0) & (weights < 1))[0])
        raise ConfigError(
            "lambda = 0 or 1 where caps stand on cut bonds",
            f"{weights[wrong]:g} of atom {wrong}",
            "correct the weights",
        )
    return TermWeights(scheme, weights, np.asarray(visible, dtype=bool), switching, caps)


def cmap_shares(atoms: np.ndarray) -> np.ndarray:
    """Shares of the eight places of two dihedrals: 1/5 per atom where they span five, else 1/8 per place.

    Parameters
    ----------
    atoms : ndarray, shape (C, 8)

    Returns
    -------
    ndarray, shape (C, 8)
    """
    atoms = np.asarray(atoms, dtype=np.int64).reshape(-1, 8)
    repeated = np.tril(atoms[:, :, None] == atoms[:, None, :], -1).any(axis=2)
    five = (repeated.sum(axis=1) == 3)[:, None]
    return np.where(five, np.where(repeated, 0.0, 1.0 / 5.0), 1.0 / 8.0)
