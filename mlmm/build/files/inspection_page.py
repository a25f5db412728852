"""Text page of an inspection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlmm.build.files.atoms import AMINO_ACIDS
from mlmm.short_repr import counted

if TYPE_CHECKING:
    from mlmm.build.files.inspection import Inspection, LigandFacts

_SHOWN = 12


def page(facts: Inspection, decisions: bool = True) -> str:
    """Text of an inspection: chains, contacts, ligands, decisions if asked, errors that stop a build."""
    lines = [
        f"{facts.name} ({facts.format}, sha256 {facts.sha256[:12]}…)"
        + (f", space group {facts.space_group}" if facts.space_group else ""),
        f"{facts.atoms} atoms, {facts.hydrogens} of them hydrogen; {facts.waters} waters; "
        + (f"{len(facts.models)} models" if len(facts.models) > 1 else "one model"),
    ]
    lines += _chain_lines(facts)
    if facts.contacts:
        pairs = [f"{a}-{b} {count}" for (a, b), count in facts.contacts.items()]
        lines += ["contacts between chains (pairs of residues within 0.45 nm)", *_wrapped(pairs)]
        lines.append("  held together: " + " | ".join(", ".join(group) for group in facts.groups))
    lines.append(f"assemblies: {'none described' if not facts.assemblies else ''}".rstrip())
    lines += [f"  {assembly}" for assembly in facts.assemblies]
    metals = [ligand for ligand in facts.ligands if ligand.metal]
    others = [ligand for ligand in facts.ligands if not ligand.metal]
    for title, members in (("metal ions", metals), ("ligands and ions", others)):
        if members:
            lines.append(title)
            lines += [f"  {_ligand_line(ligand)}" for ligand in members[:_SHOWN]]
            if len(members) > _SHOWN:
                lines.append(f"  and {len(members) - _SHOWN} more")
    if facts.modified:
        lines += ["modified residues", *_wrapped(list(facts.modified))]
    if facts.decisions and decisions:
        lines.append("found while reading (! deserves a look)")
        lines += [f"  {'!' if d.warning else ' '} {d.text}" for d in facts.decisions]
    if facts.problems:
        lines += ["would stop a build", *(f"  ! {problem}" for problem in facts.problems)]
    return "\n".join(lines)


def _ligand_line(ligand: LigandFacts) -> str:
    touches = ", ".join(f"{chain} ({count})" for chain, count in ligand.touches.items()) or "no chain"
    label = f", label {ligand.label}" if ligand.label else ""
    words = [] if ligand.metal else [counted(ligand.heavy_atoms, "heavy atom")]
    words += ["a free amino acid"] if ligand.free and ligand.name in AMINO_ACIDS else []
    words += [f"bonded to {' and '.join(ligand.bonded)}"] if ligand.bonded else []
    words += [] if ligand.bonded and not ligand.touches else [f"touches {touches}"]
    return f"{ligand.residue}{label}: {', '.join(words)}"


def _chain_lines(facts: Inspection) -> list[str]:
    lines = ["chains" if facts.chains else "no protein or nucleic acid"]
    for chain in facts.chains:
        label = f" (label {', '.join(chain.labels)})" if chain.labels else ""
        first, last = (end.partition(" of chain ")[0] for end in (chain.first, chain.last))
        lines.append(f"  {chain.chain}{label}  {chain.kind}, {chain.residues} residues, {first} to {last}")
        lines += [f"      without coordinates: {text}" for text in chain.missing]
        lines += [f"      broken between {text}" for text in chain.gaps]
    return lines


def _wrapped(words: list[str], width: int = 100) -> list[str]:
    lines, line = [], " "
    for word in words:
        if len(line) + len(word) > width:
            lines.append(line.rstrip(","))
            line = " "
        line += f" {word},"
    return [*lines, line.rstrip(",")]
