"""What a build would do, up to the point before anything slow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from openmm import app, unit

from mlmm.build.build_log import Decision, as_decisions, log_text
from mlmm.build.families import force_field_files
from mlmm.build.files.atoms import BINDING_METALS, CheckedStructure, coordinates
from mlmm.build.files.inspection import Inspection, inspect_file
from mlmm.build.files.inspection_page import page
from mlmm.build.files.reading import read_file, read_structure, settle
from mlmm.build.files.sources import find_structure
from mlmm.build.glycans import has_sugars, place_of, with_names_of_the_file
from mlmm.build.ligands.alone import structure_from_smiles
from mlmm.build.ligands.definition import LigandPlan, plan_ligands
from mlmm.build.ligands.molecules import formal_charge
from mlmm.build.options import BuildOptions
from mlmm.build.parametrise import load_force_field, residue_templates
from mlmm.build.plan_page import system_page
from mlmm.build.protons.available import check_available
from mlmm.build.protons.bridging import bridging_oxygens
from mlmm.build.protons.metals import REACH, metal_states
from mlmm.build.protons.protonation import named_by_user
from mlmm.build.questions import NothingLeftError, OpenQuestionError
from mlmm.build.repair import find_repairs
from mlmm.build.templates import patches_made_once, template_charge
from mlmm.errors import MLMMError
from mlmm.neighbours import pairs_within
from mlmm.options import with_changes
from mlmm.short_repr import ShortRepr, shortened

_MOST_QUESTIONS = 20  # that a dry run looks behind
_WITHOUT = "without "


@dataclass(frozen=True)
class PlannedStructure:
    """Residues of a build that was not made.

    Parameters
    ----------
    topology : openmm.app.Topology
        After caps and replaced residues; without the atoms that would be added.
    positions : ndarray, shape (N, 3), nm
        Of the atoms of `topology`.
    missing : dict
        Residue of `topology` -> names of the heavy atoms that would be added.
    ligands : LigandPlan
    decisions : tuple of Decision
        Of repairing.
    cell : bool
        Whether the file's cell would be kept without solvent.
    named : bool
        Whether names in the file, such as HIP, or metals decide about protonation states.
    states : dict
        Residue index of `topology` -> protonation state that the user, the file or a metal decides.
    charges : dict
        Charge in e of the residues that the user describes or changes, or that take a template of another
        name, by name.
    """

    topology: app.Topology
    positions: np.ndarray
    missing: dict[app.topology.Residue, list[str]]
    ligands: LigandPlan
    decisions: tuple[Decision, ...]
    cell: bool = False
    named: bool = False
    states: dict[int, str] = field(default_factory=dict)
    charges: dict[str, int] = field(default_factory=dict)

    def page(self) -> str:
        """Residues, ends, ionisable groups and charge of the system, to read."""
        return "\n".join(system_page(self.topology, self.missing, self.states, self.charges))


@dataclass(frozen=True, repr=False)
class BuildPlan(ShortRepr):
    """Inspection and decisions of a build that was not made; `str` gives a page to read.

    Parameters
    ----------
    inspection : Inspection
    decisions : tuple of Decision
        Of reading, selecting and repairing.
    problems : tuple of MLMMError
        What would stop the build: open questions, and at most one at the end that lets nothing behind it be
        seen.
    planned : PlannedStructure, optional
        Where nothing would stop it.
    assumed : PlannedStructure, optional
        What would be built if the questions were answered as their assumptions say.
    """

    inspection: Inspection
    decisions: tuple[Decision, ...]
    problems: tuple[MLMMError, ...] = ()
    planned: PlannedStructure | None = None
    assumed: PlannedStructure | None = None

    @property
    def problem(self) -> MLMMError | None:
        """The first of what would stop the build."""
        return self.problems[0] if self.problems else None

    @property
    def assumptions(self) -> str:
        """How the open questions were answered for the decisions and the page, in words, or nothing."""
        words = [problem.assumption for problem in self.problems if isinstance(problem, OpenQuestionError)]
        left_out = [text.removeprefix(_WITHOUT) for text in words if text.startswith(_WITHOUT)]
        others = [text for text in dict.fromkeys(words) if not text.startswith(_WITHOUT)]
        return ", ".join([*others, *([_WITHOUT + ", ".join(left_out)] if left_out else [])])

    def _summary(self) -> dict[str, str]:
        return {
            "file": self.inspection.name,
            "decisions": str(len(self.decisions)),
            "would stop": "; ".join(shortened(str(problem), 120) for problem in self.problems),
        }

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre-wrap">{escape(str(self))}</pre>'

    def __str__(self) -> str:
        end = "nothing is in the way; protonation, solvent and parameters come next"
        if len(self.problems) == 1:
            end = f"the build would stop: {self.problems[0]}"
        elif self.problems:
            numbered = [f"  {number}. {problem}" for number, problem in enumerate(self.problems, 1)]
            end = "\n".join(["the build would stop, for several reasons", *numbered])
        shown = self.planned or self.assumed
        assuming = f", {self.assumptions}" if self.assumptions else ""
        if shown is not None:
            first, _, rest = shown.page().partition("\n")
            end = f"{first}{assuming}\n{rest}\n\n{end}"
        if not self.decisions:
            return f"{self.inspection}\n\n{end}"
        text = f"decisions{assuming}\n{log_text(self.decisions)}"
        return f"{page(self.inspection, decisions=False)}\n\n{text}\n\n{end}"


@patches_made_once()
def plan_system(
    pdb: str | os.PathLike[str], options: BuildOptions | None = None, **changes: Any
) -> BuildPlan:
    """Read, inspect, select and find what has to be repaired, without changing or building anything.

    Parameters
    ----------
    pdb, options, **changes
        As for `mlmm.build_system`.

    Raises
    ------
    StructureError
        A file that cannot be read at all.
    ConfigError
        A setting that cannot be used.
    """
    options = with_changes(BuildOptions, options, changes)
    file = read_file(find_structure(pdb, download=options.download, sha256=options.sha256))
    inspection = inspect_file(file)
    decisions: list[Decision] = []
    problems: list[MLMMError] = []
    loaded: dict[tuple[str, ...], app.ForceField] = {}
    while True:
        try:
            # A ligand that is left out for the rest of the dry run still binds its metal in the file.
            structure = settle(file, options)
            decisions = decisions or list(structure.decisions)
            planned = _planned(structure, plan_ligands(options.ligands, options.mutate), options, loaded)
        except OpenQuestionError as question:
            problems.append(question)
            options = question.assumed(options)
            if len(problems) == _MOST_QUESTIONS:
                return BuildPlan(inspection, tuple(decisions), tuple(problems))
        except MLMMError as error:
            seen = problems if isinstance(error, NothingLeftError) and problems else [*problems, error]
            return BuildPlan(inspection, tuple(decisions), tuple(seen))
        else:
            decisions += planned.decisions
            shown = {"assumed" if problems else "planned": planned}
            return BuildPlan(inspection, tuple(decisions), tuple(problems), **shown)


def plan_structure(
    pdb: str | os.PathLike[str] | None = None, options: BuildOptions | None = None, *, smiles: str = ""
) -> PlannedStructure:
    """Find the residues and heavy atoms that a build would have before water comes around them.

    Parameters
    ----------
    pdb, options, smiles
        As for `mlmm.build_system`.

    Raises
    ------
    StructureError, ConfigError
        What would stop the build.
    """
    options = with_changes(BuildOptions, options, {})
    ligands = plan_ligands(options.ligands, options.mutate)
    if pdb is None:
        source = structure_from_smiles(smiles, ligands)
    else:
        path = find_structure(pdb, download=options.download, sha256=options.sha256)
        source = read_structure(path, options)
    return _planned(source, ligands, options, {})


def _planned(
    source: CheckedStructure,
    ligands: LigandPlan,
    options: BuildOptions,
    loaded: dict[tuple[str, ...], app.ForceField],
) -> PlannedStructure:
    names = {atom.residue_name for atom in source.atoms}
    sugars = has_sugars(source, ligands.names)
    files = force_field_files(
        options.forcefield, options.water, names, sugars=sugars, implicit=options.implicit
    )
    paths = tuple(str(file) for file in (*files, *ligands.files))
    if paths not in loaded:
        loaded[paths] = load_force_field(paths, options.trust)
    force_field = loaded[paths]
    repairs = find_repairs(source, ligands, force_field, options)
    positions = np.array(repairs.fixer.positions.value_in_unit(unit.nanometer))
    topology = repairs.fixer.topology
    given = named_by_user(topology, options.protonate)
    check_available(topology, force_field, given)
    _, bridging = bridging_oxygens(topology, positions, force_field, given)
    in_file = {residue.index: source.protonation.get(place_of(residue)) for residue in topology.residues()}
    states = {index: state for index, state in in_file.items() if state} | given
    by_metal, at_metals = metal_states(topology, positions, force_field, given)
    states = by_metal | states
    with_names_of_the_file(repairs.fixer.topology, repairs.renamed)
    borrowed = {
        decision.residue.partition(" ")[0]: str(decision.numbers["template"])
        for decision in repairs.decisions
        if isinstance(decision, Decision) and decision.kind == "template"
    }
    return PlannedStructure(
        repairs.fixer.topology,
        positions,
        {residue: [atom.name for atom in atoms] for residue, atoms in repairs.fixer.missingAtoms.items()},
        ligands,
        (
            *as_decisions("repair", repairs.decisions),
            *bridging,
            *(at_metals if not source.protonation else ()),
        ),
        source.cell is not None and source.space_group.replace(" ", "") in ("", "P1"),
        bool(source.protonation) or _donors_at_metals(source),
        states,
        _charges(ligands, force_field, borrowed),
    )


def _charges(ligands: LigandPlan, force_field: app.ForceField, borrowed: Mapping[str, str]) -> dict[str, int]:
    """Charges of described residues, of those that are turned into one, and of those that borrow a template.

    All by the names of the file; `borrowed` is such a name to that of the template.
    """
    templates = residue_templates(force_field)
    known = {name: templates[name] for name in ligands.names if name in templates}
    known |= {name: templates[other] for name, other in borrowed.items() if other in templates}
    charges = {name: round(template_charge(force_field, template)) for name, template in known.items()}
    charges |= {name: formal_charge(ligand.molecule) for name, ligand in ligands.definitions.items()}
    return charges | {old: charges[new] for old, new in ligands.mutate.items() if new in charges}


def _donors_at_metals(source: CheckedStructure) -> bool:
    """Whether a cysteine or histidine may lose a proton to a metal."""
    metals = coordinates(atom for atom in source.atoms if atom.element in BINDING_METALS)
    donors = coordinates(atom for atom in source.atoms if atom.name in REACH)
    return len(pairs_within(metals, donors, max(REACH.values()))) > 0
