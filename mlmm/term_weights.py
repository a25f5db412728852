"""Who owns which interaction: the share W_t of every force-field term that a potential takes over.

A term t keeps (1 − W_t) of its energy in the force field. W_t follows from the weights lambda of its atoms
by the rule of the scheme. Nothing else decides it: the force field (`scale_terms`), the blend
(`replaced_terms`) and the check of `double_counting` all ask here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlmm.errors import ConfigError

__all__ = ["SCHEMES", "Level", "TermWeights", "cmap_shares", "make_term_weights"]

#: scheme -> rule for bonded terms, for 1-4 pairs, for other pairs
SCHEMES = {
    "per_atom": ("share", "share", "share"),
    "supermolecular": ("any", "any", "any"),
    "additive": ("all", "all", "all"),
    "bonded": ("share", "share", "none"),
    "delta": ("none", "none", "none"),
}


@dataclass(frozen=True)
class Level:
    """One hard set of the nested sets S_1 < S_2 < … that make a smooth zone of whole differences.

    Parameters
    ----------
    weight : float
        Of this set; all weights add up to 1.
    atoms : frozenset of int
    caps : tuple of (int, int)
        Bonds that the set cuts: the atom outside, which keeps a hydrogen cap, and the atom inside.
    """

    weight: float
    atoms: frozenset[int]
    caps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class TermWeights:
    """Rules and weights of one hybrid system.

    Parameters
    ----------
    scheme : str
        A key of `SCHEMES`.
    weights : ndarray, shape (N,)
        lambda of every atom.
    visible : ndarray, shape (N,), bool
        Atoms whose terms may be replaced: those that the potential sees, and virtual sites on them.
    switching : tuple of (float, float) or None
        r_on and r_off of the pairs, nm; None hands over pairs at every distance.
    levels : tuple of Level
        Of scheme ``supermolecular``.
    """

    scheme: str
    weights: np.ndarray
    visible: np.ndarray
    switching: tuple[float, float] | None
    levels: tuple[Level, ...] = ()

    @property
    def active(self) -> np.ndarray:
        """Atoms with lambda > 0, sorted."""
        return np.flatnonzero(self.weights > 0)

    @property
    def rules(self) -> tuple[str, str, str]:
        """For bonded terms, 1-4 pairs, other pairs."""
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
        return self._fractions(atoms, self.rules[0], shares)

    def one_four(self, atoms: np.ndarray) -> np.ndarray:
        """W_t of pairs with parameters of their own, before the switching function; (T, 2) -> (T,)."""
        return self._fractions(atoms, self.rules[1], None)

    def pairs(self, atoms: np.ndarray) -> np.ndarray:
        """W_t of all other pairs, before the switching function; (T, 2) -> (T,)."""
        return self._fractions(atoms, self.rules[2], None)

    def _fractions(self, atoms: np.ndarray, rule: str, shares: np.ndarray | None) -> np.ndarray:
        atoms = np.asarray(atoms, dtype=np.int64)
        lam = self.weights[atoms]
        if rule == "none":
            fractions = np.zeros(len(atoms))
        elif rule == "all":
            fractions = lam.min(axis=1)
        elif rule == "share":
            fractions = lam.mean(axis=1) if shares is None else (shares * lam).sum(axis=1)
        elif self.levels:
            fractions = np.sum([level.weight * self._touched(level, atoms) for level in self.levels], axis=0)
        else:
            fractions = lam.max(axis=1)
        return np.where(self.visible[atoms].all(axis=1), fractions, 0.0)

    def _touched(self, level: Level, atoms: np.ndarray) -> np.ndarray:
        """1 for a term with an atom of the set, unless the set's cap takes part in it as that atom does."""
        inside = np.zeros(len(self.weights), dtype=bool)
        inside[list(level.atoms)] = True
        found = inside[atoms]
        touched = found.any(axis=1)
        if level.caps and atoms.shape[1] > 2:
            capped = np.zeros(len(atoms), dtype=np.int64)
            for outer, inner in level.caps:
                capped += (atoms == outer).any(axis=1) & (atoms == inner).any(axis=1)
            # X–A–B with B alone inside: the capped set has X–A–H, so that the potential's two passes cancel.
            touched &= ~((found.sum(axis=1) == 1) & (capped == 1))
        return touched.astype(np.float64)


def make_term_weights(
    scheme: str,
    weights: np.ndarray,
    visible: np.ndarray,
    switching: tuple[float, float] | None,
    levels: tuple[Level, ...] = (),
) -> TermWeights:
    """Check and make a `TermWeights`; parameters as there.

    Raises
    ------
    ConfigError
        An unknown scheme, weights outside 0 … 1, levels whose weights do not add up to 1 or to lambda.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme = {' | '.join(SCHEMES)}", repr(scheme), 'write scheme = "per_atom"')
    if levels and abs(sum(level.weight for level in levels) - 1.0) > 1e-12:
        raise ConfigError(
            "levels whose weights add up to 1", str([level.weight for level in levels]), "correct the levels"
        )
    weights = np.asarray(weights, dtype=np.float64)
    if not ((weights >= 0) & (weights <= 1 + 1e-12)).all():
        wrong = np.flatnonzero(~((weights >= 0) & (weights <= 1 + 1e-12)))[0]
        raise ConfigError("lambda from 0 to 1", f"{weights[wrong]:g} of atom {wrong}", "correct the weights")
    if levels:
        sums = np.zeros(len(weights))
        for level in levels:
            sums[list(level.atoms)] += level.weight
        if np.abs(sums - weights).max() > 1e-12:
            wrong = int(np.abs(sums - weights).argmax())
            raise ConfigError(
                "lambda of every atom as the sum of the levels that hold it",
                f"{weights[wrong]:g} of atom {wrong} instead of {sums[wrong]:g}",
                "correct the weights or the levels",
            )
    return TermWeights(scheme, weights, np.asarray(visible, dtype=bool), switching, levels)


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
