"""What `ANIForce` refuses, and how: a sentence with the next step, never the end of the process."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from ani_contexts import context_of, evaluated, force_of, in_torch, parameters, picked, system_of
from ani_gases import gas

import mlmm
from mlmm.errors import MissingPackageError, PotentialError
from mlmm.plugin import (
    AdaptiveANIForce,
    ANIForce,
    MemberEvaluation,
    SupermolecularANIForce,
    library,
    plugin_problem,
    potential_energies,
)

pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built"),
]

CUBE = 1.2 * np.eye(3)
NUMBERS = [8, 1, 1, 6, 7, 1]
REFERENCE = ("Reference", {})


@pytest.fixture(scope="module")
def positions() -> np.ndarray:
    return gas(6, 0.6, [1, 6, 7, 8], cell=torch.tensor(CUBE), seed=4).positions.numpy()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (("mace-off23-small", [1]), {}, "which is of another family"),
        (("ani9x", [1]), {}, "ANI networks by name .*but got 'ani9x'"),
        ((3.0, [1]), {}, "a name, a file or ANIParameters, but got float"),
        (("ani1x", [8, 17]), {}, "elements H, C, N, O of the ANI networks, but got Cl"),
        (("ani1x", [8, 1], [0]), {}, "one particle and one weight for each of 2 atomic numbers"),
        (("ani1x", [8, 1], None, [1.0]), {}, "one particle and one weight for each of 2 atomic numbers"),
        (("ani1x", [8]), {"precision": "half"}, "precision = float32"),
    ],
)
def test_arguments_that_do_not_fit(given, options, message):
    with pytest.raises(PotentialError, match=message):
        ANIForce(*given, **options)


def test_networks_that_are_no_numbers_or_of_another_shape():
    """NaN anywhere in the networks of an element that is there; a layer that is missing; a wrong cutoff."""
    good = parameters()
    weights = [layer.copy() for layer in good.weights["O"]]
    weights[1][0, 2, 3] = np.nan
    with pytest.raises(openmm.OpenMMException, match=r"finite weights .* each layer of O, but got NaN"):
        ANIForce(dataclasses.replace(good, weights=good.weights | {"O": weights}), [8])
    ANIForce(dataclasses.replace(good, weights=good.weights | {"O": weights}), [1])
    short = {symbol: layers[1:] for symbol, layers in good.weights.items()}
    biases = {symbol: layers[1:] for symbol, layers in good.biases.items()}
    with pytest.raises(openmm.OpenMMException, match="numbers in layer 0"):
        ANIForce(dataclasses.replace(good, weights=short, biases=biases), [8])
    constants = good.constants | {"Rcr": np.array(np.nan)}
    with pytest.raises(openmm.OpenMMException, match="finite constants of ANI symmetry functions"):
        ANIForce(dataclasses.replace(good, constants=constants), [8])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": [0, 1, 1, 2, 3, 4]}, "every particle once in an ANIForce, but got 1 twice"),
        ({"particles": [0, 1, 2, 3, 4, 6]}, "particles between 0 and 5 in an ANIForce, but got 6"),
        ({"particles": [0, 1, 2, 3, 4, -1]}, "particles between 0 and 5 in an ANIForce, but got -1"),
        ({"weights": [1, 1, 1, np.nan, 1, 1]}, "finite weights of particles, but got NaN or infinity for"),
        ({"caps": [(0, 0, 0.1)]}, "a cap on a bond between two particles"),
        ({"caps": [(0, 1, -0.1)]}, "a cap on a bond between two particles"),
        ({"caps": [(0, 9, 0.1)]}, "particles between 0 and 5 in an ANIForce, but got 9"),
    ],
)
def test_a_context_is_refused(options, message):
    with pytest.raises(openmm.OpenMMException, match=message):
        context_of(system_of(6, ANIForce(parameters(), NUMBERS, **options)), REFERENCE)


def test_another_force_and_another_context(positions):
    force = force_of(NUMBERS)
    context = context_of(system_of(6, force), REFERENCE)
    evaluated(context, positions)
    with pytest.raises(TypeError, match="Expected an ANIForce, but got 'NonbondedForce'"):
        ANIForce.cast(openmm.NonbondedForce())
    foreign = force_of(NUMBERS)
    for call in (foreign.updateParametersInContext, foreign.getMemberEnergies):
        with pytest.raises(openmm.OpenMMException):
            call(context)
    with pytest.raises(PotentialError, match="6 weights"):
        force.setWeights([1.0])
    for weights, message in (
        ([0, 1, 1, 1, 1, 1], "a weight that becomes zero"),
        ([np.inf, 1, 1, 1, 1, 1], "finite weights"),
    ):
        force.setWeights(weights)
        with pytest.raises(openmm.OpenMMException, match=message):
            force.updateParametersInContext(context)
    assert np.isfinite(evaluated(context)[0])


@pytest.mark.parametrize("platform", picked("Reference", "GPU-mixed"))
def test_a_box_that_is_too_small_ends_the_run(platform, positions):
    """Below twice the cutoff an atom would see another one twice; a larger box goes on."""
    integrator = openmm.VerletIntegrator(0.0005)
    context = context_of(system_of(6, force_of(NUMBERS, periodic=True), cell=CUBE), platform, integrator)
    context.setPositions(positions)
    context.setPeriodicBoxVectors(*(1.03 * np.eye(3)))
    with pytest.raises(openmm.OpenMMException, match=r"a periodic box of at least 1\.04.* nm"):
        integrator.step(1)
    context.setPeriodicBoxVectors(*CUBE)
    integrator.step(1)


@pytest.mark.parametrize("platform", picked("Reference", "CPU"))
def test_nan_reaches_the_host_from_the_processor_as_an_error(platform, positions):
    """Also of a neighbour without weight that is nowhere, or of atoms at one place; then all is as before."""
    for weights in (np.ones(6), np.array([1.0, 1, 1, 1, 1, 0])):
        integrator = openmm.VerletIntegrator(1e-6)
        context = context_of(system_of(6, force_of(NUMBERS, weights)), platform, integrator)
        energy = evaluated(context, positions)[0]
        for atom, place in ((5, np.nan), (5, np.inf), (4, positions[3])):
            moved = positions.copy()
            moved[atom] = place
            context.setPositions(moved)
            # The platform CPU looks at coordinates itself.
            told = "finite energies of the atoms of an ANIForce|coordinate is NaN"
            with pytest.raises(openmm.OpenMMException, match=told):
                context.getState(energy=True)
            with pytest.raises(openmm.OpenMMException, match=told):
                integrator.step(1)
            assert evaluated(context, positions)[0] == energy


@pytest.mark.parametrize("platform", picked("GPU-mixed", "GPU-single"))
def test_nan_reaches_the_host_from_a_gpu_as_an_error(platform, positions):
    """When the energy is asked for at once, within 64 steps otherwise; then all is as before."""
    integrator = openmm.VerletIntegrator(1e-6)
    context = context_of(system_of(6, force_of(NUMBERS)), platform, integrator)
    energy = evaluated(context, positions)[0]
    overlap, lost = positions.copy(), positions.copy()
    overlap[4] = overlap[3]
    lost[5, 1] = np.nan
    for moved in (overlap, lost):
        context.setPositions(moved)
        with pytest.raises(openmm.OpenMMException, match="finite energies of the atoms of an ANIForce"):
            context.getState(energy=True)
        assert evaluated(context, positions)[0] == energy
    context.setPositions(overlap)
    with pytest.raises(openmm.OpenMMException):
        integrator.step(65)


def run_with_plugin(path, code: str) -> subprocess.CompletedProcess:
    """A process that looks for the plugin elsewhere."""
    script = (
        "import logging, pathlib, openmm\n"
        "from mlmm.plugin import library\n"
        "library.load_plugin.cache_clear()\n"
        f"library._PATH = pathlib.Path({str(path)!r})\n" + code
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


_FALL_BACK = """
from mlmm.plugin import plugin_problem
from mlmm.hybrid.bridge import choose_bridge
from mlmm.potentials import load_potential
from mlmm.errors import MissingPackageError
logging.basicConfig()
print(plugin_problem())
potential = load_potential("ani1x", members=[0])
print(choose_bridge("auto", potential, in_plugin=True))
try:
    choose_bridge("native", potential, in_plugin=True)
except MissingPackageError as error:
    print(error)
"""


def test_another_openmm_is_refused_and_the_hybrid_goes_another_way(tmp_path):
    """The library as it would be if it had been compiled for another version."""
    content = library._PATH.read_bytes()
    assert content.count(b"8.6.1") > 0
    other = tmp_path / "ani_plugin.so"
    other.write_bytes(content.replace(b"8.6.1", b"8.5.9"))
    # Registered already in this process: the real one is loaded first when mlmm.plugin is imported.
    done = run_with_plugin(other, _FALL_BACK)
    assert done.returncode == 0, done.stderr
    problem, bridge, error = done.stdout.strip().splitlines()
    assert "Expected OpenMM 8.5.9, for which ANIForce was compiled, but got 8.6.1" in problem
    assert bridge == "torchforce" and "pip install openmm==8.6.1" in error
    assert done.stderr.count("not by OpenMM's plugin") == 1


def test_without_the_plugin_there_is_one_line_and_another_way(tmp_path, monkeypatch):
    """Nothing compiled; a library that is damaged; one of other sources."""
    for content in (None, b"no library"):
        path = tmp_path / "ani_plugin.so"
        if content is not None:
            path.write_bytes(content)
        done = run_with_plugin(path, _FALL_BACK)
        assert done.returncode == 0, done.stderr
        problem, bridge, error = done.stdout.strip().splitlines()
        assert bridge == "torchforce" and "install a C++17 compiler" in error and problem == error
        assert done.stderr.count("not by OpenMM's plugin") == 1
    shutil.copy(library._PATH, path)
    (tmp_path / "plugin.cpp").write_text("// newer\n")
    monkeypatch.setattr(library, "_PATH", path)
    library.load_plugin.cache_clear()
    try:
        with pytest.raises(MissingPackageError, match="of other sources"):
            library.load_plugin()
    finally:
        monkeypatch.undo()
        library.load_plugin.cache_clear()
    assert plugin_problem() is None


def test_damaged_xml_is_refused():
    """A newer version, weights that are no base64, an element that lost a layer."""
    xml = openmm.XmlSerializer.serialize(force_of([8, 1, 1]))
    for change, message in (
        (('version="1"', 'version="2"'), "version 1 of the XML of an ANIForce, but got 2"),
        (('biases="', 'biases="*'), "base64 in the XML of an ANI force"),
        (('width="1"', 'width="2"'), "each layer of"),
    ):
        assert change[0] in xml
        with pytest.raises(openmm.OpenMMException, match=message):
            openmm.XmlSerializer.deserialize(xml.replace(*change))


def test_the_energy_tells_members_apart(positions):
    """The control of all that is called equal here: another member is another energy."""
    _, _, members = in_torch(NUMBERS, positions, np.ones(6))
    assert abs(members[0].sum() - members[1].sum()) > 1.0


_A_RUN = """
import sys
from mlmm.cli import main
changes = ["run.minimise=2", "run.equilibrate=4 fs", "run.produce=8 fs", "run.nve=0 fs", "run.timestep=1 fs"]
changes += ["report.interval=2", "potential.members=[0,1]"]
options = [word for change in changes for word in ("--set", change)]
sys.exit(main(["run", RUN_FILE, "--out", OUT, *options]))
"""


def test_a_committee_runs_to_the_end_without_the_plugin(tmp_path):
    """Rows with the spread of the members, and the reason in the log of the run."""
    file = Path(mlmm.__file__).parent.parent / "systems/alanine_dipeptide/run.toml"
    where = f"RUN_FILE, OUT = {str(file)!r}, {str(tmp_path / 'run')!r}\n"
    done = run_with_plugin(tmp_path / "none.so", where + _A_RUN)
    assert done.returncode in (0, 1), done.stderr  # 1: a check of so short a run
    with (tmp_path / "run/energies.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) >= 4 and all(float(row["committee_spread"]) > 0 for row in rows)
    log = (tmp_path / "run/run.log").read_text(encoding="utf-8")
    assert log.count("ANI-1x by torchforce, not by OpenMM's plugin: Expected the OpenMM plugin of mlmm") == 1


def test_an_object_of_another_class_is_refused(positions):
    """Which C++ would take for what it is not."""
    force = force_of(NUMBERS)
    context = context_of(system_of(6, force), REFERENCE)
    context.setPositions(positions)
    system = context.getSystem()
    for call in (
        lambda: force.updateParametersInContext(system),
        lambda: force.getMemberEnergies(context.getIntegrator()),
        lambda: potential_energies(system, [{0}]),
        lambda: MemberEvaluation(system, 6),
    ):
        with pytest.raises(TypeError, match=r"Expected an openmm\.(Context|Force), but got a"):
            call()
    for kind in (ANIForce, AdaptiveANIForce, SupermolecularANIForce):
        for other in (system, context, context.getState()):
            with pytest.raises(TypeError, match=r"Expected an openmm\.Force, but got a"):
                kind.cast(other)
    assert np.isfinite(force.getMemberEnergies(context)).all()


def test_caps_outside_the_system_are_refused_without_a_context(positions):
    """By reports, as by a Context."""
    for cap in ((0, 7, 0.1), (0, 100_000_000, 0.1), (-5, 0, 0.1)):
        force = ANIForce(parameters(), NUMBERS, caps=[cap])
        with pytest.raises(openmm.OpenMMException, match="Expected particles between 0 and 5 in an ANIForce"):
            MemberEvaluation(force, 6)
    moved = positions.copy()
    moved[2] = moved[1]
    evaluation = MemberEvaluation(force_of(NUMBERS), 6)
    assert np.isfinite(evaluation(positions).energies).all()
    with pytest.raises(openmm.OpenMMException, match="finite energies"):
        evaluation(moved)


@pytest.mark.parametrize("particles", [[2**32, 1], [0.9, 1.9]])
def test_particles_are_whole_numbers(particles):
    with pytest.raises(PotentialError, match="particles as whole numbers"):
        ANIForce(parameters(), [8, 1], particles)


@pytest.mark.parametrize("platform", picked("Reference", "CPU"))
def test_forces_that_are_no_numbers_are_an_error_where_the_energy_is_one(platform):
    """Of two atoms at one place, which have no angle; their energy alone is finite."""
    integrator = openmm.VerletIntegrator(1e-6)
    context = context_of(system_of(2, force_of([8, 1])), platform, integrator)
    context.setPositions(np.zeros((2, 3)))
    with pytest.raises(openmm.OpenMMException, match="finite energies of the atoms of an ANIForce"):
        integrator.step(1)
    context.setPositions([[0, 0, 0], [0.1, 0, 0]])
    integrator.step(1)


_TOO_LITTLE = """
import dataclasses, resource
import numpy as np
from mlmm.plugin import ANIForce
from mlmm.plugin.committees import find_committee
one = find_committee("ani1x")
tiled = {}
for name in ("weights", "biases"):
    tiled[name] = {
        symbol: tuple(np.tile(a, (MANY,) + (1,) * (a.ndim - 1)) for a in layers)
        for symbol, layers in getattr(one, name).items()
    }
committee = dataclasses.replace(one, **tiled)
force = ANIForce(committee, [8]) if MADE_BEFORE else None
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, -1))
system = openmm.System()
system.addParticle(16.0)
try:
    system.addForce(force or ANIForce(committee, [8]))
    openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
except openmm.OpenMMException as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no memory that can be limited here")
@pytest.mark.parametrize("made_before", [True, False])
def test_more_members_than_memory_is_a_sentence(made_before):
    """Wherever it runs out: for the force or for the Context; with enough of it nothing is said."""
    # With less than that OpenMM has no threads for a Context, and ends the process.
    for room, told in (((100 if made_before else 20) << 20, True), (1 << 34, False)):
        given = f"ROOM, MANY, MADE_BEFORE = {room}, 40, {made_before}\n"
        done = run_with_plugin(library._PATH, given + _TOO_LITTLE)
        assert done.returncode == 0, done.stderr
        assert ("Expected memory" in done.stdout and "Use fewer" in done.stdout) == told, done.stdout
