"""The house rules that a program can check: direction of imports, lengths, stray numbers, error texts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mlmm
from mlmm import errors

PACKAGE = Path(mlmm.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "data" not in path.parts)
# Lowest first; a module may import from its own floor or below.
FLOORS = [
    ["errors", "units", "statistics"],
    ["structures", "regions", "stages", "ownership", "mm_functions", "graphs", "kernel_library"],
    ["check_report", "integrators", "reference"],
    ["step_tests", "barostat"],
    ["imaging", "cuts", "zone_shapes", "compensation"],
    ["zones"],
    ["adaptive"],
    ["zone_volumes"],
    ["density"],
    ["refinement_state"],
    ["potentials", "build", "run_directory"],
    ["cuda_graphs"],
    ["embedding", "bridge", "caps"],
    ["mm_tables", "pair_kernel"],
    ["mm_terms", "compiled_pairs", "hosted_pairs", "region_charges"],
    ["core_pairs", "handed_over", "compiled"],
    ["blend", "adaptive_blend", "electrostatics"],
    ["difference"],
    ["recipe"],
    ["hosting", "force_groups"],
    ["assembly", "schemes"],
    ["charge_levels"],
    ["hybrid"],
    ["boundary"],
    ["audit"],
    ["zone_checks", "drift"],
    ["uncertainty"],
    ["reporters"],
    ["records"],
    ["runner"],
    ["simulation"],
    ["bench", "calibration", "comparison", "diagnostics", "report", "scan", "time_steps"],
    ["refinement"],
    ["settings"],
    ["config"],
    ["cli_build"],
    [
        "cli_bench",
        "cli_calibrate",
        "cli_compare",
        "cli_drift",
        "cli_ligand",
        "cli_models",
        "cli_refine",
        "cli_run",
        "cli_scan",
        "cli_structure",
        "cli_time_steps",
    ],
    ["cli"],
]
TORCH_SIDE = [
    *("potentials", "zones", "zone_shapes", "structures", "mm_functions", "mm_terms", "core_pairs"),
    *("handed_over", "caps", "blend", "difference", "adaptive", "adaptive_blend", "compensation"),
    *("density", "zone_volumes", "refinement_state", "electrostatics", "kernel_library", "pair_kernel"),
    *("hosted_pairs", "cuda_graphs"),
]
OPENMM_SIDE = [
    *("build", "embedding", "regions", "mm_tables", "ownership", "compiled", "compiled_pairs"),
    *("graphs", "cuts", "region_charges"),
]


def module_name(path: Path) -> str:
    """The first part below mlmm: a file or a folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Everything imported in a file, at any depth, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    name = module_name(path)
    if name == "__init__":
        return
    floor = {module: level for level, modules in enumerate(FLOORS) for module in modules}
    for imported in imports(path):
        parts = imported.split(".")
        if parts[0] == "mlmm" and len(parts) > 1 and parts[1] in floor:
            assert floor[parts[1]] <= floor[name], f"{name} imports {imported}"
    libraries = {imported.split(".")[0] for imported in imports(path)}
    if name in TORCH_SIDE:
        assert "openmm" not in libraries
    if name in OPENMM_SIDE:
        assert "torch" not in libraries
    if name in ("config", "settings"):
        assert not libraries & {"numpy", "torch", "openmm", "mdtraj"}


def test_every_module_has_a_floor():
    assert {module_name(path) for path in FILES} - {"__init__"} == {m for floor in FLOORS for m in floor}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short_quiet_and_without_stray_constants(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 420
    if path.name != "cli.py":
        assert not re.search(r"^\s*print\(", text, re.MULTILINE)
    if path.name != "units.py":
        assert not re.search(r"\b(96\.48|627\.5|4\.184|0\.5291|27\.211|2625\.|138\.93)", text)


def test_public_names_are_importable_and_documented():
    for name in mlmm.__all__:
        value = getattr(mlmm, name)
        assert value.__doc__ and value.__doc__.strip(), name
    # A submodule of the same name would take the place of the function as soon as somebody imports it.
    assert not set(mlmm.__all__) & {module_name(path) for path in FILES}
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        mlmm.nonsense  # noqa: B018


def test_errors_are_few_and_also_built_in():
    children = errors.MLMMError.__subclasses__()
    assert len(children) <= 7
    builtin = (ValueError, ArithmeticError, ImportError)
    assert all(issubclass(child, builtin) for child in children)


def test_an_error_survives_pickling():
    import pickle

    error = errors.ConfigError("a", "b", "c")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "expected a; got b; c"
    assert (again.expected, again.got, again.do) == ("a", "b", "c")
