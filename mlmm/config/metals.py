"""Restraints on the coordination of metals, for ``[system] metals = "restrain"``."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from mlmm.collective_variables.options import Restraint, Variable
from mlmm.config.schema import RunConfig
from mlmm.config.tables import variables_and_restraints
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem

__all__ = ["METAL_FORCE_CONSTANT", "biases_of"]

#: kJ/mol/nm², of no published model: at 300 K a distance so held fluctuates by 0.008 nm.
METAL_FORCE_CONSTANT = 40000.0


def biases_of(
    config: RunConfig, built: BuiltSystem, region: Collection[int]
) -> tuple[list[Variable], list[Restraint]]:
    """Variables and restraints of a run file, those on metals included.

    Every metal is held at its distances of the built structure from the atoms N, O and S that bind it, with
    E = k/2 (r - r_0)². A pair inside the region is left to the potential.

    Parameters
    ----------
    config : RunConfig
    built : BuiltSystem
    region : collection of int
        Atoms that the potential describes.

    Raises
    ------
    ConfigError
        Metals are to be restrained and none binds anything.
    """
    variables, restraints = variables_and_restraints(config)
    if config.system.metals != "restrain":
        return variables, restraints
    from mlmm.build.metal_sites import coordination_bonds

    bonds = coordination_bonds(built.topology, built.positions)
    if not bonds:
        raise ConfigError(
            'a metal with N, O or S at the length of a bond, for metals = "restrain"',
            "none in the built structure",
            "leave the key out",
        )
    inside = set(region)
    for metal, donor, distance in bonds:
        if metal.index in inside and donor.index in inside:
            continue
        ends = [
            f"{atom.residue.name}{atom.residue.id}{atom.residue.chain.id}_{atom.name}"
            for atom in (metal, donor)
        ]
        name = re.sub(r"\W", "_", f"d_{ends[0]}_{ends[1]}")
        variable = Variable(name, groups=[f"index {metal.index}", f"index {donor.index}"])
        variables.append(variable)
        restraints.append(
            Restraint(
                variable=name, at=f"{distance:.5f} nm", force_constant=f"{METAL_FORCE_CONSTANT:g} kJ/mol/nm^2"
            )
        )
    return variables, restraints
