"""Paths of molecules on a Gaussian process: far fewer energies, the same barrier; both kernels; the trust."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlmm import Variable
from mlmm.reactions import gaussian_process
from mlmm.reactions.band import PathResult
from mlmm.reactions.gaussian_process import KERNELS, GaussianProcess, bond_radii, inverse_distances
from mlmm.reactions.irc import follow_reaction_coordinate
from mlmm.reactions.minimise import minimise
from mlmm.reactions.molecules import molecule_system
from mlmm.reactions.options import IRCOptions, NEBOptions, ScanOptions, TransitionStateOptions
from mlmm.reactions.path import nudged_elastic_band
from mlmm.reactions.scan import scan
from mlmm.reactions.surface import ReactionSurface
from mlmm.reactions.surfaces import method_surface
from mlmm.reactions.transition_state import find_saddle
from mlmm.reactions.variables import SurfaceVariables
from mlmm.units import ANGSTROM

_ETHER = Path(__file__).parents[2] / "systems/allyl_vinyl_ether/reactant.xyz"
#: Vinyl alcohol and acetaldehyde, Å, in one order: C, C, O, then hydrogens, the one that moves last.
_ALCOHOL = [
    [-1.25, 0.06, 0.0], [0.0, -0.40, 0.0], [1.09, 0.39, 0.0],
    [-1.42, 1.13, 0.0], [-2.10, -0.61, 0.0], [0.19, -1.47, 0.0], [0.83, 1.32, 0.0],
]  # fmt: skip
_ALDEHYDE = [
    [-1.17, 0.12, 0.0], [0.24, -0.38, 0.0], [1.21, 0.33, 0.0],
    [-1.72, -0.23, 0.88], [-1.72, -0.23, -0.88], [0.34, -1.49, 0.0], [-1.15, 1.21, 0.0],
]  # fmt: skip


def test_derivatives_of_both_kernels_are_those_of_differences():
    half, step = np.array([0.01, 0.3, 1.7]), 1e-5
    for kernel in KERNELS.values():
        low, high, here = (kernel(half + shift, 0.8) for shift in (-step, step, 0.0))
        np.testing.assert_allclose(here[1], -(high[0] - low[0]) / (2 * step), rtol=1e-6)
        np.testing.assert_allclose(here[2], -(high[1] - low[1]) / (2 * step), rtol=1e-6)
        assert abs(here[1] - here[2]).min() > 1e-3


def test_a_bond_of_any_elements_has_the_feature_one():
    radii = bond_radii([6, 1, 8])
    positions = np.array([[0.0, 0.0, 0.0], [radii[0], 0.0, 0.0], [0.0, 2 * radii[1], 0.0]])
    features, slopes = inverse_distances(positions, radii)
    assert features[:2] == pytest.approx([1.0, 0.5])
    assert slopes[0, 3] == pytest.approx(-1.0 / radii[0])


@pytest.mark.parametrize("name", list(KERNELS))
def test_forces_are_slopes_under_both_kernels(name, monkeypatch):
    monkeypatch.setattr(gaussian_process, "KERNELS", {name: KERNELS[name]})
    generator = np.random.default_rng(1)
    start = np.array(_ALCOHOL) * ANGSTROM
    process = GaussianProcess([6, 6, 8, 1, 1, 1, 1])
    for _ in range(4):
        place = start + generator.normal(0, 0.01, start.shape)
        process.add(place, float(generator.normal()), generator.normal(0, 100, start.shape))
    process.fit()
    assert process.kernel == name
    _, forces = process.predict(start)
    shift = np.zeros(start.shape)
    shift[2, 0] = 1e-6
    slope = (process.predict(start + shift)[0] - process.predict(start - shift)[0]) / 2e-6
    assert forces[2, 0] == pytest.approx(-slope, rel=1e-5)


def relaxed(surface: ReactionSurface, ends: list[np.ndarray], optimiser: str, **changes) -> PathResult:
    surface.calls = 0
    options = NEBOptions(**{"relax_ends": False, "optimiser": optimiser} | changes)
    return nudged_elastic_band(surface, *ends, options)


def test_a_hydrogen_moves_with_few_energies(tmp_path, monkeypatch):
    """Vinyl alcohol to acetaldehyde: the barrier of the band, with less than a quarter of its energies.

    The control: without Matérn's kernel the path has not converged after as many rounds.
    """
    rows = [" ".join([name, *map(str, place)]) for name, place in zip("CCOHHHH", _ALCOHOL, strict=True)]
    (tmp_path / "alcohol.xyz").write_text("7\n\n" + "\n".join(rows) + "\n")
    surface = method_surface("gfn2", molecule_system(str(tmp_path / "alcohol.xyz")))
    ends = [
        minimise(surface, np.array(end) * ANGSTROM, tolerance=5.0, steps=300).positions
        for end in (_ALCOHOL, _ALDEHYDE)
    ]
    found = relaxed(surface, ends, "gp", images=7)
    few = surface.calls
    band = relaxed(surface, ends, "bfgs", images=7)
    assert found.converged
    assert band.converged
    assert few < surface.calls / 4
    assert found.energies.max() == pytest.approx(band.energies.max(), abs=0.3)
    monkeypatch.setattr(gaussian_process, "KERNELS", {"gaussian": KERNELS["gaussian"]})
    assert not relaxed(surface, ends, "gp", images=7, steps=found.iterations).converged


@pytest.mark.slow
def test_the_claisen_rearrangement_with_few_energies():
    """14 atoms, between the minima of the reaction coordinate: less than a fifth of the band's energies."""
    surface = method_surface("gfn2", molecule_system(str(_ETHER)))
    reaction = Variable("reaction", "difference", ["name C3", "name O1", "name C1", "name C5"])
    along = SurfaceVariables(surface, [reaction])
    path = scan(surface, along, [np.linspace(-0.22, 0.2, 15)], ScanOptions())
    top = find_saddle(surface, path.path[np.argmax(path.profile)], TransitionStateOptions(), expected=along)
    ends = [end[0] for end in follow_reaction_coordinate(surface, top.positions, IRCOptions()).ends]
    found = relaxed(surface, ends, "gp", steps=100)
    few = surface.calls
    band = relaxed(surface, ends, "bfgs")
    assert found.converged
    assert band.converged
    assert few < surface.calls / 5
    assert found.energies.max() == pytest.approx(top.energy, abs=0.3)
