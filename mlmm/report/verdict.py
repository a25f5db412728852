"""Did a run go well? Each thing that can be judged from its records: ok, look or bad, with the number.

``ok``: nothing speaks against it. ``look``: a person has to decide, and is told where to look. ``bad``: do
not use the run before the cause is found. What was not measured, or too short to be judged, is said to be so,
and is no reason for or against anything. Limits are absolute where a small deviation does not matter, and in
standard errors of correlated samples where noise has to be told from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.dynamics.drift import SHORTEST
from mlmm.report.bonds import BondFacts, ChangedBond
from mlmm.report.reading import production_rows
from mlmm.report.text import (
    as_float,
    as_mapping,
    in_digits,
    in_words,
    look_up,
    planned_stages,
    production_stages,
    with_error,
)
from mlmm.statistics import block_standard_error, drift_limit
from mlmm.units import AMU_PER_NM3, KILOCALORIE

__all__ = ["LEVELS", "Judgement", "Verdict", "judge"]

#: From worst to best; "unknown" is neither good nor bad.
LEVELS = ("bad", "look", "ok", "unknown")
#: Temperature: as far as this from the target it does not matter, or is beyond use (parts of the target).
_TEMPERATURE_SMALL, _TEMPERATURE_LARGE = 0.01, 0.05
#: Standard errors beyond which a difference is none of chance, or surely none.
_UNLIKELY, _IMPOSSIBLE = 3.0, 5.0
#: Drift of an energy, kJ/mol/ns/dof: harmless; that of 120 K/ns; error above which nothing can be said.
_DRIFT_SMALL, _DRIFT_LARGE, _DRIFT_VAGUE = 0.05, 0.5, 0.25
#: Density of water between 280 and 320 K, g/cm³ (models differ by 2 %), and parts of it.
_WATER_DENSITY, _DENSITY_SMALL, _DENSITY_LARGE = 0.997, 0.04, 0.10
_WATER_PURE, _WATER_RANGE, _LOW_PRESSURE = 0.95, (280.0, 320.0), 100.0
#: Change of density from the first to the second half: no matter, or another state.
_CHANGE_SMALL, _CHANGE_LARGE = 0.005, 0.05
#: Part of the bonds under the potential that may break in a reaction; and not fewer than so many.
_REACTION_SHARE, _REACTION_BONDS = 0.25, 3
#: Standard deviation of a committee's energy over the square root of its atoms, kJ/mol, beyond which its
#: authors added structures to their training sets. 0.23 kcal/mol is quoted for ANI-1x (doi
#: 10.1063/1.5023802) and was not compared with that text. Their scripts of the rounds with S, F and Cl have
#: 0.34 kcal/mol, for the deviation that divides by n (github.com/Jussmith01/ANI-Tools, 5db0c6c2a945:
#: activelearning/al_conf_cycle.py, lib/pyaniasetools.py). The lower of the two, and n - 1 in the deviation,
#: make the stricter point.
_SPREAD = {"ANI-1x": 0.23 * KILOCALORIE}
#: Part of the samples that may lie beyond a limit of the run, and beyond the authors', which is a strict one.
_BEYOND, _BEYOND_PUBLISHED = 0.05, 0.5


@dataclass(frozen=True)
class Judgement:
    """One thing that was judged.

    Parameters
    ----------
    name : str
    level : {"ok", "look", "bad", "unknown"}
    finding : str
        The number, and what it is held against.
    advice : str
        The next step; empty where there is none to take.
    """

    name: str
    level: str
    finding: str
    advice: str = ""


@dataclass(frozen=True)
class Verdict:
    """All judgements of a run, the worst first.

    Parameters
    ----------
    judgements : tuple of Judgement
    """

    judgements: tuple[Judgement, ...]

    @property
    def level(self) -> str:
        """The worst of all; "unknown" where nothing could be judged."""
        return min((j.level for j in self.judgements), key=LEVELS.index, default="unknown")

    def of(self, *levels: str) -> list[Judgement]:
        """Those of some levels."""
        return [judgement for judgement in self.judgements if judgement.level in levels]

    @property
    def headline(self) -> str:
        """One sentence."""
        judged, level = len(self.of("ok")), self.level
        if level == "bad":
            return "Do not use this run before the cause is found."
        if level == "look":
            count = len(self.of("look"))
            return f"Look at {'one point' if count == 1 else f'{count} points'} before you use this run."
        if level == "unknown":
            return "Nothing in this run could be judged yet."
        return f"Nothing speaks against this run, judged by {judged} point{'s' * (judged > 1)}."

    @property
    def line(self) -> str:
        """One line for the terminal."""
        worst = self.of(self.level)
        if self.level in ("bad", "look"):
            findings = "; ".join(f"{judgement.name}: {judgement.finding}" for judgement in worst)
            return f"verdict: {self.level}: {findings}"
        return f"verdict: {self.level}: {self.headline}"

    @property
    def lines(self) -> list[str]:
        """A line for each judgement, and one for each next step."""
        width = max((len(judgement.name) for judgement in self.judgements), default=0)
        found = []
        for judgement in self.judgements:
            level = "-" if judgement.level == "unknown" else judgement.level
            found.append(f"{level:4}  {judgement.name:{width}}  {judgement.finding}")
            if judgement.advice:
                found.append(f"{'':4}  {'':{width}}  → {judgement.advice}")
        return found


def judge(
    run: Mapping[str, Any], energies: Mapping[str, np.ndarray], bonds: BondFacts | None = None
) -> Verdict:
    """Judge a run by its records.

    Parameters
    ----------
    run : mapping
        Contents of ``run.json``.
    energies : mapping of str to ndarray
        Columns of ``energies.csv``.
    bonds : BondFacts, optional
        What its frames say about bonds.
    """
    run = dict(run)
    found = [
        _state(run),
        _training(run),
        _bonds(bonds, as_float(look_up(run, "zones", "core"))),
        _temperature(run, energies),
        _drift(run),
        _density(run, energies),
        _spread(run, energies),
    ]
    known = [judgement for judgement in found if judgement is not None]
    return Verdict(tuple(sorted(known, key=lambda judgement: LEVELS.index(judgement.level))))


def _state(run: dict) -> Judgement:
    state = str(run.get("state"))
    where = f"stage {in_words(run.get('stage'))}, step {in_words(run.get('step'))}"
    if state == "finished":
        return Judgement("run", "ok", "finished")
    if state == "failed":
        reason = str(run.get("message") or "no reason was recorded")
        return Judgement("run", "bad", f"failed in {where}: {reason}", "see run.log for the last messages")
    if state == "interrupted":
        reason = f" ({run['message']})" if run.get("message") else ""
        return Judgement("run", "look", f"interrupted in {where}{reason}", "go on with mlmm run … --resume")
    if state in ("running", "starting"):
        advice = "wait for its end; if no process is at work, it was killed: go on with --resume"
        reason = f" ({run['message']})" if run.get("message") else ""
        return Judgement("run", "look", f"not finished: {where}{reason}", advice)
    return Judgement("run", "look", "run.json does not say whether it finished", "look at run.log")


def _training(run: dict) -> Judgement | None:
    """What the potential was not trained on, as the set-up of the run found it."""
    said = look_up(run, "region", "outside_training")
    if not isinstance(said, list):
        return None
    if said:
        advice = "take a potential that knows it: mlmm models lists what each was trained on"
        return Judgement("training", "bad", " ".join(map(str, said)), advice)
    finding = "charge, spin and elements of the region are of the kind that the potential was trained on"
    return Judgement("training", "ok", finding)


def _bonds(bonds: BondFacts | None, core: float) -> Judgement:
    if bonds is None:
        return Judgement("bonds", "unknown", "no frames to look at")
    looked = f"{bonds.bonds:,} bonds in {bonds.frames:,} frame{'s' * (bonds.frames > 1)}"
    if not bonds.broken and not bonds.formed:
        return Judgement("bonds", "ok", f"none broken of {looked}, none new")
    outside = [bond for bond in bonds.broken if not bond.modelled]
    inside = len(bonds.broken) - len(outside)
    example = "; ".join(_example(changed[0]) for changed in (bonds.broken, bonds.formed) if changed)
    if outside:
        also = (
            f", and {_counted(inside, len(bonds.formed))} under the potential"
            if inside or bonds.formed
            else ""
        )
        finding = f"{len(outside)} broken in the force field, where none can break{also}: {example}"
        return Judgement("bonds", "bad", finding, "shorten the time step, or minimise longer")
    changed = _counted(inside, len(bonds.formed))
    apart = bonds.modelled_share > _REACTION_SHARE and inside >= _REACTION_BONDS
    if apart or (bonds.formed_share > _REACTION_SHARE and len(bonds.formed) >= _REACTION_BONDS):
        finding = f"the region {'came apart' if apart else 'collapsed'}: {changed}, first {example}"
        advice = "shorten the time step; if that does not help, the potential does not hold this molecule"
        return Judgement("bonds", "bad", finding, advice)
    advice = "play the trajectory: a reaction, or a place where the potential is wrong"
    return Judgement("bonds", "look", f"{changed} in the region: {example} ({looked})", advice)


def _example(bond: ChangedBond) -> str:
    return f"{bond.name} {bond.length:.3g} nm instead of {bond.usual:.3g} nm at {bond.where}"


def _counted(broken: int, formed: int) -> str:
    """Say how many bonds changed, such as "2 bonds broken, 1 bond new"."""
    counts = ((broken, "broken"), (formed, "new"))
    return ", ".join(f"{n} bond{'s' * (n > 1)} {what}" for n, what in counts if n)


def _temperature(run: dict, energies: Mapping[str, np.ndarray]) -> Judgement:
    """Mean over the production against the thermostat, with the error of correlated samples."""
    name = "temperature"
    samples, stages = production_rows(run, energies, name), planned_stages(run)
    kept = [stages[stage] for stage in production_stages(run) if stage in stages]
    targets = {as_float(stage.get("temperature")) for stage in kept if stage.get("ensemble") != "NVE"}
    if not samples.size:
        return Judgement(name, "unknown", "no production yet")
    if len(targets) != 1 or not (target := targets.pop()) > 0:
        return Judgement(name, "unknown", f"{in_digits(samples.mean(), 'K', 4)}, without one thermostat")
    mean, error, remark = float(samples.mean()), block_standard_error(samples), ""
    if not error > 0:
        freedom = as_float(look_up(run, "system", "degrees_of_freedom"))
        # Of one sample: the canonical ensemble's own fluctuation.
        error = target * math.sqrt(2.0 / freedom) if freedom > 0 else math.nan
        remark = ", too short for an error of its own: that of one sample"
    if not error > 0:
        return Judgement(name, "unknown", f"{in_digits(mean, 'K', 4)} without an error, target {target:g} K")
    off, away = abs(mean - target), abs(mean - target) / error
    finding = f"{with_error(mean, error)} K, {away:.1f} standard errors from {target:g} K{remark}"
    if away <= _UNLIKELY or off <= _TEMPERATURE_SMALL * target:
        return Judgement(name, "ok", finding)
    advice = "leave out the first part of the production, or equilibrate longer; mlmm check timestep"
    advice += " tells whether the steps are too long"
    bad = away > _IMPOSSIBLE and off > _TEMPERATURE_LARGE * target
    return Judgement(name, "bad" if bad else "look", finding, advice)


def _drift(run: dict) -> Judgement:
    """Slope of the energy without thermostat, against that of the force field where it was measured."""
    drift, error = (
        as_float(look_up(run, "drift", k)) for k in ("kj_per_mol_per_ns_per_dof", "standard_error")
    )
    if not (math.isfinite(drift) and error >= 0):
        return Judgement(
            "energy drift", "unknown", "not measured: no NVE stage", 'add nve = "1 ps" to [run] to measure it'
        )
    unit = "kJ/mol/ns/dof"
    finding = f"{with_error(drift, error)} {unit}"
    reference, reference_error = (
        as_float(look_up(run, "drift", "force_field", k))
        for k in ("kj_per_mol_per_ns_per_dof", "standard_error")
    )
    length = as_float(look_up(run, "drift", "length_ps"))
    longer = "make nve in [run] longer: the error falls with the 3/2 power of its length"
    vague = f"{finding}: {in_digits(length, 'ps')} are too short to say"
    if length < SHORTEST:
        return Judgement("energy drift", "unknown", vague, longer)
    least = max(0.0, abs(drift) - 2.0 * error)
    advice = "shorten the time step: mlmm check timestep finds the longest that holds"
    if math.isfinite(reference) and reference_error >= 0:
        finding += f"; the force field alone {with_error(reference, reference_error)}"
        limit = max(drift_limit(reference, reference_error, error), _DRIFT_SMALL)
        if abs(drift) > limit:
            level = "bad" if least > max(_DRIFT_LARGE, 2.0 * limit) else "look"
            return Judgement("energy drift", level, finding, advice)
    elif least > _DRIFT_SMALL:
        return Judgement("energy drift", "bad" if least > _DRIFT_LARGE else "look", finding, advice)
    if error > _DRIFT_VAGUE:
        return Judgement("energy drift", "unknown", vague, longer)
    return Judgement("energy drift", "ok", finding)


def _density(run: dict, energies: Mapping[str, np.ndarray]) -> Judgement | None:
    """Under constant pressure: that of water where it nearly is water, and whether it still changes."""
    stages = planned_stages(run)
    kept = [stages[stage] for stage in production_stages(run) if stage in stages]
    if not any(stage.get("ensemble") == "NPT" for stage in kept):
        return None
    volumes, mass = production_rows(run, energies, "volume"), as_float(look_up(run, "system", "mass_amu"))
    if len(volumes) < 2 or not mass > 0:
        return Judgement("density", "unknown", "no volumes in production yet")
    density = mass * AMU_PER_NM3 / volumes
    mean, error = float(density.mean()), block_standard_error(density)
    finding = f"{with_error(mean, error)} g/cm³"
    levels, advice = ["ok"], ""
    first, second = np.array_split(density, 2)
    change = float(second.mean() - first.mean()) / mean
    # Of the difference between halves, each with half the samples.
    noise = 2.0 * error / mean if error > 0 else 0.0
    if abs(change) > max(_CHANGE_SMALL, _UNLIKELY * noise):
        finding += f", {change:+.1%} from the first to the second half"
        levels.append("bad" if abs(change) > _CHANGE_LARGE else "look")
        advice = "equilibrate longer: the box has not found its size yet"
    pure = as_float(look_up(run, "system", "water_mass_fraction")) >= _WATER_PURE
    warm = any(_WATER_RANGE[0] <= as_float(stage.get("temperature")) <= _WATER_RANGE[1] for stage in kept)
    pressures = [as_float(look_up(run, "settings", f"{stage.get('name')}.pressure")) for stage in kept]
    if pure and warm and not any(pressure > _LOW_PRESSURE for pressure in pressures):
        off = abs(mean / _WATER_DENSITY - 1.0)
        finding += f"; water has {_WATER_DENSITY}"
        if off > _DENSITY_SMALL + (_UNLIKELY * error / mean if error > 0 else 0.0):
            levels.append("bad" if off > _DENSITY_LARGE else "look")
            advice = advice or "look for empty space in the box, and at the force field of the water"
    return Judgement("density", min(levels, key=LEVELS.index), finding, advice)


def _spread(run: dict, energies: Mapping[str, np.ndarray]) -> Judgement | None:
    """Spread of a committee against the limits of the run, else against its authors' own."""
    name = "committee spread"
    limits = as_mapping(look_up(run, "uncertainty", "limits"))
    spreads = production_rows(run, energies, "committee_spread")
    if not spreads.size and not limits:
        return None
    # What is beyond, in words; samples; their limit; the part of them that may lie beyond it; unit.
    held: list[tuple[str, np.ndarray, float, float, str]] = []
    for column, limit in limits.items():
        values = production_rows(run, energies, column)
        if values.size and as_float(limit) > 0:
            held.append(
                (f"{column.replace('_', ' ')} ≤ {in_digits(limit)}", values, as_float(limit), _BEYOND, "")
            )
    atoms = as_float(look_up(run, "zones", "core")) + as_float(look_up(run, "zones", "transition"))
    published = _SPREAD.get(str(look_up(run, "potential", "name")))
    if not held and published and atoms > 0 and spreads.size:
        what = f"{published:.2f}, quoted as the limit beyond which its authors added training data"
        unit = "kJ/mol per √atoms"
        held.append((what, spreads / math.sqrt(atoms), published, _BEYOND_PUBLISHED, unit))
    if not held:
        mean = f"mean {in_digits(spreads.mean(), 'kJ/mol')}" if spreads.size else "no production yet"
        advice = "set a limit in [uncertainty]" if spreads.size else ""
        return Judgement(name, "unknown", f"{mean}, without a limit to hold it against", advice)
    findings, levels = [], ["ok"]
    for what, values, limit, allowed, unit in held:
        share = float((values > limit).mean())
        findings.append(f"mean {in_digits(values.mean(), unit)}, {share:.0%} of the samples beyond {what}")
        if share > allowed:
            levels.append("bad" if float(np.median(values)) > 2.0 * limit else "look")
    level = min(levels, key=LEVELS.index)
    advice = 'keep such frames (action = "save" in [uncertainty]) and compare some with a better method'
    return Judgement(name, level, "; ".join(findings), "" if level == "ok" else advice)
