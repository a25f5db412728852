"""Dynamics with electrostatic embedding: the energy of ions in water is conserved, trypsin is stable."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from fragments import structure_file
from openmm import unit

import mlmm
from mlmm.build import BuiltSystem, build_system
from mlmm.check_report import CheckReport
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.potentials.amp_bms.potential import AMPModule
from mlmm.validation.check import check_drift
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones

pytestmark = pytest.mark.slow
pytest.importorskip("rdkit", reason='pip install "mlmm[ligands]"')
pytest.importorskip("parmed", reason='pip install "mlmm[ligands]"')

IONS = {"acetate": "CC(=O)[O-]", "methylammonium": "C[NH3+]"}
RUN = {"nve_length": "2 ps", "equilibration": "0.5 ps", "timestep": "0.5 fs", "threads": 1}


def ion_in_water(smiles: str) -> BuiltSystem:
    return build_system(
        smiles=smiles, padding="0.8 nm", nonbonded_cutoff="0.9 nm", constraints="none", rigid_water=False
    )


def embedded(built: BuiltSystem, selection: str, **options) -> HybridSystem:
    zones = hard_zones(built, select_region(built, selection))
    return hybrid_system(built, zones, mlmm.load_potential("amp-bms"), electrostatics="embedded", **options)


def fluctuations(report: CheckReport) -> float:
    """Of the energy around its drift, relative to pure MM."""
    mm, hybrid = (result.value for result in report.results if result.name.startswith("fluctuation"))
    return hybrid / mm


@pytest.mark.parametrize("ion", IONS)
def test_nve_of_an_ion_in_water_drifts_no_more_than_the_force_field(ion):
    """At most twice pure MM, within two standard errors; its fluctuation is that of pure MM."""
    report = check_drift(embedded(ion_in_water(IONS[ion]), "resid 0"), **RUN)
    assert report.passed and fluctuations(report) < 1.5, str(report)


def test_multipoles_that_do_not_answer_in_the_force_lose_the_energy(monkeypatch):
    """Control: without the response the forces are no gradient, and the energy of acetate wanders."""
    whole = AMPModule.in_field

    def frozen(self, *arguments):
        energies, *multipoles = whole(self, *arguments)
        return energies, *(values.detach() for values in multipoles)

    monkeypatch.setattr(AMPModule, "in_field", frozen)
    hybrid = embedded(ion_in_water(IONS["acetate"]), "resid 0", bridge="pythonforce")
    assert fluctuations(check_drift(hybrid, **RUN)) > 3.0


@pytest.mark.skipif(structure_file("3PTB.pdb") is None, reason="no 3PTB.pdb in MLMM_STRUCTURES")
def test_benzamidinium_in_trypsin_stays_in_its_pocket():
    """36,600 atoms from the PDB file: 0.25 ps, the salt bridge to ASP 189 as in the crystal, no bond torn."""
    from mlmm.build.ligands.definition import Ligand

    ligand = Ligand("BEN", smiles="NC(=[NH2+])c1ccccc1", charge=1)
    built = build_system(structure_file("3PTB.pdb"), ligands=[ligand])
    hybrid = embedded(built, "resname BEN")
    integrator = openmm.LangevinMiddleIntegrator(300, 10, 0.0005)
    context = openmm.Context(
        hybrid.system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "2"}
    )
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 30)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(500)
    state = context.getState(positions=True, energy=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert np.isfinite(state.getPotentialEnergy()._value)
    atoms = list(built.topology.atoms())
    inside = {atom.index for atom in atoms if atom.residue.name == "BEN"}
    lengths = [
        np.linalg.norm(positions[a.index] - positions[b.index])
        for a, b in built.topology.bonds()
        if a.index in inside
    ]
    assert len(lengths) >= 18 and min(lengths) > 0.09 and max(lengths) < 0.17
    nitrogens = [atom.index for atom in atoms if atom.index in inside and atom.element.symbol == "N"]
    oxygens = [
        a.index for a in atoms if a.residue.name == "ASP" and a.residue.id == "189" and a.name[:2] == "OD"
    ]
    bridge = np.linalg.norm(positions[nitrogens][:, None] - positions[oxygens][None], axis=2).min()
    assert bridge < 0.33
