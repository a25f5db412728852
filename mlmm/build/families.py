"""Force fields and water models by one word, as files that OpenMM ships."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import NUCLEOTIDES
from mlmm.errors import ConfigError

__all__ = [
    "CHARMM_CAPS",
    "FAMILIES",
    "GLYCAM",
    "WATER_MODELS",
    "force_field_files",
    "lacking_impropers",
    "water_box",
]

#: Carbohydrates; its types are those of ff14SB.
GLYCAM = "amber14/GLYCAM_06j-1.xml"
#: Caps of CHARMM36m as residues of their own, in this package's data.
CHARMM_CAPS = "charmm36m_caps.xml"
#: Water model -> pre-equilibrated box that OpenMM ships, with as many sites.
WATER_MODELS = {
    "tip3p": "tip3p",
    "tip3pfb": "tip3p",
    "spce": "spce",
    "opc3": "tip3p",
    "opc": "tip4pew",
    "tip4pew": "tip4pew",
    "tip4pfb": "tip4pew",
}
_BOX_BY_SITES = {3: "tip3p", 4: "tip4pew", 5: "tip5p"}


@dataclass(frozen=True)
class Family:
    """Files of one force field: proteins, nucleic acids, each water model, carbohydrates.

    `born`: whether the radii of OpenMM's implicit solvents were made for its charges.
    """

    protein: tuple[str, ...]
    nucleic: tuple[str, ...]
    water: dict[str, str]
    sugars: tuple[str, ...] = ()
    born: bool = True


FAMILIES = {
    "amber14": Family(
        ("amber14/protein.ff14SB.xml",),
        ("amber14/DNA.OL15.xml", "amber14/RNA.OL3.xml"),
        {name: f"amber14/{name}.xml" for name in WATER_MODELS},
        (GLYCAM,),
    ),
    "amber19": Family(
        ("amber19/protein.ff19SB.xml",),
        ("amber19/DNA.OL21.xml", "amber14/RNA.OL3.xml"),
        {name: f"amber19/{name}.xml" for name in WATER_MODELS},
    ),
    "charmm36m": Family(
        ("charmm36_2024.xml", CHARMM_CAPS),
        (),
        {
            "tip3p": "charmm36_2024/water.xml",
            "spce": "charmm36_2024/spce.xml",
            "tip4pew": "charmm36_2024/tip4pew.xml",
        },
        born=False,
    ),
}


def force_field_files(
    forcefield: str | Sequence[str],
    water: str,
    residue_names: Iterable[str] = (),
    *,
    sugars: bool = False,
    implicit: str = "",
) -> list[str]:
    """File names for `openmm.app.ForceField`.

    Parameters
    ----------
    forcefield : str or sequence of str
        A name of `FAMILIES`, or XML files.
    water : str
        A name of `WATER_MODELS`; files that are given hold their own water.
    residue_names : iterable of str
        Of the structure: nucleotides bring the family's nucleic-acid files.
    sugars : bool
        The structure has sugars: they bring the family's file of carbohydrates.
    implicit : str
        Model of an implicit solvent, or none.

    Raises
    ------
    ConfigError
        An unknown force field or water model.
    """
    if water not in WATER_MODELS:
        raise ConfigError(f"water as one of {', '.join(WATER_MODELS)}", repr(water), 'write water = "tip3p"')
    born = [f"implicit/{implicit}.xml"] if implicit else []
    if not isinstance(forcefield, str):
        return [*(str(name) for name in forcefield), *born]
    if forcefield in FAMILIES:
        family = FAMILIES[forcefield]
        if implicit and not family.born:
            raise ConfigError(
                f"an implicit solvent with one of {', '.join(n for n, f in FAMILIES.items() if f.born)}, for "
                "whose charges its radii were made",
                f"implicit = {implicit!r} with {forcefield}",
                'write forcefield = "amber14", or water instead of implicit',
            )
        if water not in family.water:
            raise ConfigError(
                f"a water model for {forcefield}: {', '.join(family.water)}",
                repr(water),
                f'write water = "{next(iter(family.water))}"',
            )
        nucleic = family.nucleic if NUCLEOTIDES.intersection(residue_names) else ()
        return [*family.protein, *nucleic, *(family.sugars if sugars else ()), family.water[water], *born]
    if forcefield.endswith(".xml"):
        return [forcefield, *born]
    raise ConfigError(
        f"forcefield as one of {', '.join(FAMILIES)}, or a list of OpenMM XML files",
        repr(forcefield),
        'write forcefield = "amber14" or forcefield = ["amber14/protein.ff14SB.xml", "amber14/tip3p.xml"]',
    )


def lacking_impropers(files: Sequence[str], topology: app.Topology) -> list[Decision]:
    """What OpenMM's `charmm36.xml` lacks: the improper of the carboxylate at the end of a chain.

    It was found term by term against CHARMM's own files; `charmm36_2024.xml` has it.

    Parameters
    ----------
    files : sequence of str
        Of the force field.
    topology : openmm.app.Topology
    """
    ends = [atom.residue for atom in topology.atoms() if atom.name == "OXT"]
    if "charmm36.xml" not in files or not ends:
        return []
    residues = ", ".join(f"{residue.name} {residue.id} of chain {residue.chain.id}" for residue in ends[:4])
    text = (
        f"OpenMM's charmm36.xml has no improper at the carboxylate that ends a chain ({residues}), which "
        'CHARMM36 has: write forcefield = "charmm36m"'
    )
    return [Decision("parametrise", "improper", text, numbers={"residues": len(ends)}, warning=True)]


def water_box(force_field: app.ForceField, water: str) -> str:
    """Pre-equilibrated box with as many sites as the water of a force field has.

    Parameters
    ----------
    force_field : openmm.app.ForceField
    water : str
        Name of the model, which decides among boxes of three sites.
    """
    sites = {len(template.atoms) for template in water_templates(force_field)}
    if sites == {3}:
        return WATER_MODELS[water] if WATER_MODELS[water] in ("tip3p", "spce") else "tip3p"
    return _BOX_BY_SITES.get(max(sites, default=3), "tip3p")


def water_templates(force_field: app.ForceField) -> list:
    """Templates of one oxygen with two hydrogens, and perhaps sites without mass."""
    found = []
    for template in force_field._templates.values():  # OpenMM has no public access to templates
        numbers = [0 if atom.element is None else atom.element.atomic_number for atom in template.atoms]
        if sorted(number for number in numbers if number) == [1, 1, 8]:
            found.append(template)
    return found
