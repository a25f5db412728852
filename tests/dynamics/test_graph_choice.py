"""CUDA graphs of a run: measured once, taken where they are right and faster, remembered, kept by the record.

There is no CUDA here: the platform that is asked about is called CPU, where nothing is recorded, both ways
have the same numbers, and what a graph may do wrong is put into the module of one of them.
"""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from graph_faults import (
    CPU,
    EVEN,
    FASTER,
    SLOWER,
    NoMemory,
    NoNumber,
    OldEnergy,
    OldEnergyAlone,
    OldForces,
    OneForce,
    Raises,
    Sound,
    files,
    make,
)
from toys import energy_and_forces

from mlmm.dynamics import graph_choice
from mlmm.dynamics.graph_memory import module_digest
from mlmm.dynamics.platforms import choose_platform, precision_of
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import load_potential


@pytest.mark.parametrize(("times", "taken"), [(FASTER, True), (SLOWER, False), (EVEN, False)])
@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
def test_the_faster_way_is_taken_and_remembered(
    scheme, times, taken, dipeptide_vacuum, measured, takes, caplog
):
    """The second run measures nothing; the energy is the same either way."""
    hybrid = make(dipeptide_vacuum, scheme=scheme)
    takes(times)
    with caplog.at_level(logging.INFO, "mlmm"):
        chosen, facts = graph_choice.choose_graphs(hybrid, CPU)
        again, facts_again = graph_choice.choose_graphs(hybrid, CPU)
    assert len(measured) == 1 and len(files()) == 1
    assert chosen.cuda_graphs is again.cuda_graphs is taken and not hybrid.cuda_graphs
    assert facts == facts_again and facts["taken"] is taken
    assert [facts["without_ms"], facts["with_ms"]] == times
    said = [record.getMessage() for record in caplog.records if "CUDA graphs" in record.getMessage()]
    words = "taken" if taken else "not taken"
    assert [line.partition(":")[0] for line in said] == [
        f"CUDA graphs {words} (measured now)",
        f"CUDA graphs {words} (remembered)",
    ]
    assert f"{times[1]:.3g} ms with, {times[0]:.3g} ms without" in said[0]
    energy, forces = energy_and_forces(hybrid.system, dipeptide_vacuum.positions)
    found, found_forces = energy_and_forces(chosen.system, dipeptide_vacuum.positions)
    assert found == pytest.approx(energy, abs=1e-6) and np.abs(found_forces - forces).max() < 1e-3


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_without_any_substitute_both_ways_agree_and_are_timed(precision, dipeptide_vacuum):
    hybrid = make(dipeptide_vacuum, precision=precision)
    choice, graphs, lasting = graph_choice.measure_graphs(hybrid, choose_platform("Reference"))
    assert graphs.cuda_graphs and lasting
    assert 0.01 < choice.without_ms < 1000 and 0.01 < choice.with_ms < 1000
    assert choice.taken == (choice.with_ms < 0.95 * choice.without_ms)


def test_another_model_or_device_is_measured_anew(dipeptide_vacuum, small, measured, takes, monkeypatch):
    takes(FASTER)
    others = [
        small,
        make(dipeptide_vacuum, members=(1,)),
        make(dipeptide_vacuum, members=(0, 1)),
        make(dipeptide_vacuum, scheme="per_atom"),
    ]
    for number, hybrid in enumerate(others, 1):
        for _ in range(2):
            graph_choice.choose_graphs(hybrid, CPU)
            assert len(measured) == number
    for name, value in (
        ("device_name", lambda platform: "another card"),
        ("precision_of", lambda platform, properties: "mixed"),
        ("program_versions", lambda: {"torch": "3.0"}),
    ):
        before = len(measured)
        with monkeypatch.context() as patch:
            patch.setattr(graph_choice, name, value)
            graph_choice.choose_graphs(small, CPU)
            assert len(measured) == before + 1, name
    # The same model, made once more, is known.
    graph_choice.choose_graphs(make(dipeptide_vacuum), CPU)
    assert len(measured) == before + 1


def test_a_digest_sees_weights_attributes_and_code(dipeptide_vacuum):
    numbers = dipeptide_vacuum.numbers.tolist()

    def bound(**options):
        return load_potential("ani1x", kernel="torch", **{"members": [0]} | options).scriptable(numbers)

    first = module_digest(bound())
    assert first == module_digest(bound())
    assert first != module_digest(bound(members=[1])) and first != module_digest(bound(shapes="fixed"))
    changed = bound()
    parameter = next(
        tensor for tensor in [*changed.parameters(), *changed.buffers()] if tensor.is_floating_point()
    )
    with torch.no_grad():
        parameter.view(-1)[0].mul_(1.0 + 1e-6)
    assert first != module_digest(changed)

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    class Square(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x

    Square.__qualname__ = Square.__name__ = "Twice"
    codes = [module_digest(torch.jit.script(kind())) for kind in (Twice, Twice, Square)]
    assert codes[0] == codes[1] != codes[2]


def told(caplog) -> list[logging.LogRecord]:
    """What was said of graphs: other tests leave other loggers at any level."""
    return [record for record in caplog.records if record.name == "mlmm.dynamics.graph_choice"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Sound, None),
        (OldForces, "forces differ by"),
        (OneForce, "forces differ by 1.0e-04 of the largest"),
        (NoNumber, "forces differ by nan"),
        (OldEnergy, "energy -"),
        (OldEnergyAlone, "energy alone -"),
        (Raises, "recording fails: "),
        (NoMemory, "recording fails: "),
    ],
)
def test_a_graph_that_is_wrong_or_cannot_be_recorded_is_not_taken(
    fault, reason, small, measured, takes, monkeypatch, caplog
):
    """One warning says why; the next run knows, except where memory was short."""
    monkeypatch.setattr("mlmm.hybrid.bridge.SamePlaces", fault)
    takes(FASTER)
    with caplog.at_level(logging.INFO, "mlmm.dynamics.graph_choice"):
        chosen, facts = graph_choice.choose_graphs(small, CPU)
    assert chosen.cuda_graphs is facts["taken"] is (reason is None)
    (said,) = told(caplog)
    assert said.levelno == (logging.INFO if reason is None else logging.WARNING)
    if reason is None:
        return
    assert (
        facts["with_ms"] is None
        and facts["reason"].startswith(reason)
        and facts["reason"] in said.getMessage()
    )
    if fault is Raises:
        assert "not permitted when stream is capturing" in said.getMessage()
    assert "\n" not in said.getMessage()
    caplog.clear()
    with caplog.at_level(logging.INFO, "mlmm.dynamics.graph_choice"):
        _, again = graph_choice.choose_graphs(small, CPU)
    assert again == facts and len(measured) == (2 if fault is NoMemory else 1)
    assert fault is NoMemory or [record.levelno for record in told(caplog)] == [logging.INFO]


def test_a_structure_without_a_finite_energy_says_nothing_of_graphs(small, measured, monkeypatch):
    """Nothing is remembered of it."""
    on_top = np.array(small.built.positions)
    on_top[0] = on_top[1]
    built = dataclasses.replace(small.built, positions=on_top)
    broken = dataclasses.replace(small, spec=dataclasses.replace(small.spec, built=built))
    monkeypatch.setattr(graph_choice, "_SHIFT", 0.0)
    _, facts = graph_choice.choose_graphs(broken, CPU)
    assert not facts["taken"] and "not finite without them" in facts["reason"] and not files()
    graph_choice.choose_graphs(small, CPU)
    assert len(measured) == 2 and files()


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", '{"key": {}}', "other key", "other words", "no number", "\udcff"],
)
def test_a_damaged_file_is_measured_anew_and_replaced(damage, small, measured, takes):
    takes(FASTER)
    graph_choice.choose_graphs(small, CPU)
    (path,) = files()
    whole = path.read_text()
    content = json.loads(whole)
    if damage == "other key":
        content["key"]["particles"] += 1
    elif damage == "other words":
        content["choice"]["pleased"] = True
    elif damage == "no number":
        content["choice"]["taken"] = "yes"
    given = json.dumps(content) if damage in ("other key", "other words", "no number") else damage
    path.write_bytes(given.encode(errors="surrogateescape"))
    chosen, _ = graph_choice.choose_graphs(small, CPU)
    assert len(measured) == 2 and chosen.cuda_graphs
    assert path.read_text() == whole and files() == [path]
    graph_choice.choose_graphs(small, CPU)
    assert len(measured) == 2


def test_a_cache_that_cannot_be_written_ends_nothing(small, measured, takes, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "file"))
    takes(FASTER)
    with caplog.at_level(logging.INFO, "mlmm"):
        for _ in range(2):
            assert graph_choice.choose_graphs(small, CPU)[0].cuda_graphs
    assert len(measured) == 2 and "not kept in the cache" in caplog.text


def test_only_torchforces_on_cuda_that_can_be_recorded_are_asked_about(
    dipeptide_vacuum, small, measured, takes, monkeypatch
):
    takes(FASTER)
    potential = load_potential("ani1x", members=[0], kernel="torch", shapes="lists")
    lists = hybrid_system(dipeptide_vacuum, small.zones, potential, scheme="additive", bridge="torchforce")
    for hybrid in (
        lists,
        make(dipeptide_vacuum, bridge="pythonforce"),
        small.reassembled(cuda_graphs="off"),
        small.reassembled(cuda_graphs="on"),
    ):
        assert graph_choice.choose_graphs(hybrid, CPU) == (hybrid, None)
    assert graph_choice.choose_graphs(small, choose_platform("Reference")) == (small, None)
    monkeypatch.undo()
    assert graph_choice.choose_graphs(small, CPU) == (small, None)
    assert not measured


def test_precision_decides_the_tolerance(small):
    """Of the model and of the platform, the coarser one."""
    fine = dataclasses.replace(
        small, spec=dataclasses.replace(small.spec, potential=load_potential("ani1x", precision="float64"))
    )
    reference = choose_platform("Reference")
    assert graph_choice.tolerance_for(fine, reference) < 1e-7
    for hybrid, platform in ((fine, CPU), (small, reference), (small, CPU)):
        assert graph_choice.tolerance_for(hybrid, platform) == 1e-5
    assert precision_of(*choose_platform("Reference")) == "double" and precision_of(*CPU) == "single"


def test_times_are_medians_of_evaluations_in_turn(monkeypatch):
    """One that was disturbed does not count; the first of each is not timed."""
    now, order = [0.0], []

    class Fake:
        def __init__(self, name, seconds):
            self.name, self.seconds, self.calls = name, seconds, 0

        def forces(self):
            order.append(self.name)
            self.calls += 1
            now[0] += 100.0 if self.calls in (1, 5) else self.seconds

    monkeypatch.setattr(graph_choice.time, "perf_counter", lambda: now[0])
    found = graph_choice.evaluation_times([Fake("usual", 0.002), Fake("graph", 0.001)])
    assert found == pytest.approx([2.0, 1.0])
    assert order == ["usual", "graph"] * (len(order) // 2) and len(order) > 2 * 20
