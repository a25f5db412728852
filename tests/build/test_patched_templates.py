"""Patched templates are made once in a build, and what they assign stays the same."""

import threading
from io import StringIO

import openmm
import pytest
from openmm import app
from openmm.app import forcefield as openmm_forcefield

from mlmm.build.templates import TemplateGraphs, bonded_atoms, patches_made_once

#: A chain of two carbons, whose ends are made by patches.
FORCE_FIELD = """<ForceField><AtomTypes>
<Type name="C" class="C" element="C" mass="12.01"/><Type name="O" class="O" element="O" mass="16.0"/>
<Type name="N" class="N" element="N" mass="14.0"/></AtomTypes>
<Residues><Residue name="LNK"><Atom name="C1" type="C" charge="0.1"/><Atom name="C2" type="C" charge="-0.1"/>
<Bond atomName1="C1" atomName2="C2"/><ExternalBond atomName="C1"/><ExternalBond atomName="C2"/>
<AllowPatch name="HEAD"/><AllowPatch name="TAIL"/></Residue></Residues>
<Patches><Patch name="HEAD"><AddAtom name="N" type="N" charge="-0.5"/>
<ChangeAtom name="C1" type="C" charge="0.6"/>
<AddBond atomName1="N" atomName2="C1"/><RemoveExternalBond atomName="C1"/></Patch>
<Patch name="TAIL"><AddAtom name="O" type="O" charge="-0.7"/><ChangeAtom name="C2" type="C" charge="0.6"/>
<AddBond atomName1="O" atomName2="C2"/><RemoveExternalBond atomName="C2"/></Patch></Patches>
<NonbondedForce coulomb14scale="0.8" lj14scale="0.5"><UseAttributeFromResidue name="charge"/>
<Atom type="C" sigma="0.3" epsilon="0.4"/><Atom type="O" sigma="0.3" epsilon="0.5"/>
<Atom type="N" sigma="0.3" epsilon="0.6"/></NonbondedForce></ForceField>"""


def chain():
    """Head, link, tail."""
    topology, before = app.Topology(), None
    there = topology.addChain("A")
    for names in (("N", "C1", "C2"), ("C1", "C2"), ("C1", "C2", "O")):
        residue = topology.addResidue("LNK", there)
        atoms = {n: topology.addAtom(n, app.element.get_by_symbol(n[0]), residue) for n in names}
        topology.addBond(atoms["C1"], atoms["C2"])
        for end, place in (("N", "C1"), ("O", "C2")):
            if end in atoms:
                topology.addBond(atoms[end], atoms[place])
        if before is not None:
            topology.addBond(before, atoms["C1"])
        before = atoms["C2"]
    return topology


def serialised(force_field, topology):
    return openmm.XmlSerializer.serialize(force_field.createSystem(topology))


@pytest.fixture
def generated(monkeypatch):
    """Templates for which OpenMM makes the patched ones."""
    original, calls = openmm_forcefield._generatePatchedSingleResidueTemplates, []

    def counted(template, patches, index, found, altered):
        calls.extend([template.name] if index == 0 else [])
        original(template, patches, index, found, altered)

    monkeypatch.setattr(openmm_forcefield, "_generatePatchedSingleResidueTemplates", counted)
    return calls


def test_patches_are_made_once_and_assign_the_same(generated):
    force_field, topology = app.ForceField(StringIO(FORCE_FIELD)), chain()
    plain = [serialised(force_field, topology) for _ in range(2)]
    assert len(generated) == 2 and plain[0] == plain[1]
    generated.clear()
    with patches_made_once():
        kept = [serialised(force_field, topology) for _ in range(2)]
        ends = [TemplateGraphs(force_field).matches(r, bonded_atoms(topology)) for r in topology.residues()]
    assert kept == plain and generated == ["LNK"]
    assert [match[0].template.name for match in ends] == ["LNK-HEAD", "LNK", "LNK-TAIL"]
    serialised(force_field, topology)
    assert len(generated) == 2  # afterwards OpenMM's own way


def test_two_force_fields_do_not_share_patches(generated):
    other = FORCE_FIELD.replace('"-0.7"', '"-0.9"').replace(
        '"C2" type="C" charge="0.6"', '"C2" type="C" charge="0.8"'
    )
    one, two = (app.ForceField(StringIO(text)) for text in (FORCE_FIELD, other))
    plain = [serialised(force_field, chain()) for force_field in (one, two)]
    with patches_made_once():
        kept = [serialised(force_field, chain()) for force_field in (one, two)]
    assert kept == plain and plain[0] != plain[1]


def test_threads_leave_the_function_of_openmm_as_it_was():
    original = openmm_forcefield._generatePatchedSingleResidueTemplates
    second_is_in, first_is_out = threading.Event(), threading.Event()

    def first():
        with patches_made_once():
            other.start()
            second_is_in.wait(0.2)
        first_is_out.set()

    def second():
        with patches_made_once():
            second_is_in.set()
            first_is_out.wait(5.0)

    other = threading.Thread(target=second)
    first()
    other.join()
    assert openmm_forcefield._generatePatchedSingleResidueTemplates is original
