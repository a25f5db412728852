"""AMP-BMS by the compiled kernel: equal to torch, output by output, with all derivatives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mlmm
from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.amp_bms.native import _library
from mlmm.potentials.amp_bms.potential import AMPModule, AMPPotential

REFERENCE = np.load(Path(__file__).with_name("amp_bms_reference.npz"))
WEIGHTS = Path(mlmm.__file__).parent / "data/amp_bms.safetensors"
SYSTEMS = sorted({name.split("/")[0] for name in REFERENCE})


@pytest.fixture(autouse=True)
def compiled():
    try:
        _library()
    except MissingPackageError:
        pytest.skip("no compiled kernel")


def module_of(system: str, kernel: str, precision: str = "float64") -> AMPModule:
    potential = AMPPotential.from_file(WEIGHTS, precision=precision, kernel=kernel)
    return potential.scriptable(
        REFERENCE[f"{system}/numbers"].tolist(), charge=int(REFERENCE[f"{system}/charge"])
    )


def arguments_of(system: str) -> list[torch.Tensor]:
    arrays = (0.1 * REFERENCE[f"{system}/x"], 0.1 * REFERENCE[f"{system}/px"], REFERENCE[f"{system}/pq"])
    return [torch.tensor(array) for array in arrays]


def evaluate(module, arguments, cell=None, width=0.0) -> list[torch.Tensor]:
    """All outputs, and gradients of a sum of them with other weights for each."""
    x, sources = (tensor.clone().requires_grad_(True) for tensor in arguments[:2])
    outputs = module.in_field(x, cell, sources, arguments[2], width)
    generator = torch.Generator().manual_seed(1)
    total = sum((torch.randn(o.shape, generator=generator, dtype=o.dtype) * o).sum() for o in outputs)
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, [x, sources])]


@pytest.mark.parametrize("system", SYSTEMS)
def test_equals_torch(system):
    """In float64 to rounding, among points, Gaussians and in a box; without one charge it does not."""
    native, in_torch, arguments = (
        module_of(system, "native"),
        module_of(system, "torch"),
        arguments_of(system),
    )
    assert native.compiled and not in_torch.compiled
    box = torch.tensor([[5.0, 0.0, 0.0], [0.9, 5.1, 0.0], [-1.1, 0.7, 5.3]], dtype=torch.float64)
    arguments[1][0] = arguments[0][0] + 0.02  # as close as it gets
    for cell, width in ((None, 0.0), (box, 0.03)):
        found, exact = (evaluate(module, arguments, cell, width) for module in (native, in_torch))
        for one, other in zip(found, exact, strict=True):
            assert float((one - other).abs().max()) < 1e-11 * max(1.0, float(other.abs().max()))
    arguments[2][0] = 0.0
    less = evaluate(native, arguments, box, 0.03)
    assert float((less[0] - exact[0]).abs().max()) > 1e-6


def test_single_precision_is_as_good_as_that_of_torch():
    arguments = arguments_of("chorismate_R")
    exact = evaluate(module_of("chorismate_R", "torch"), arguments)
    errors = []
    for kernel in ("native", "torch"):
        found = evaluate(module_of("chorismate_R", kernel, "float32"), arguments)
        errors.append([float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)])
    assert all(own < max(3 * other, 1e-6) for own, other in zip(*errors, strict=True))
    assert max(errors[0]) > 1e-9


def test_one_atom_no_charge_and_atoms_beyond_the_messages():
    potential = [AMPPotential.from_file(WEIGHTS, precision="float64", kernel=k) for k in ("native", "torch")]
    for positions in (torch.zeros(1, 3), torch.eye(2, 3)):
        x = positions.to(torch.float64)
        nothing = [torch.zeros(0, 3).double(), torch.zeros(0).double()]
        found, exact = (evaluate(p.scriptable([8] * len(x), charge=-1), [x, *nothing]) for p in potential)
        for one, other in zip(found, exact, strict=True):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-10)


def test_what_is_not_a_number_stays_so():
    arguments = arguments_of("methylammonium")
    for which in (0, 1):
        broken = [tensor.clone() for tensor in arguments]
        broken[which][0, 1] = float("nan")
        found = evaluate(module_of("methylammonium", "native"), broken)
        assert bool(torch.isnan(found[0]).all()) and bool(torch.isnan(found[4]).any())


def test_what_the_kernel_cannot_do_is_refused():
    module, (x, sources, charges) = module_of("water", "native"), arguments_of("water")
    with pytest.raises(PotentialError, match="positions of shapes"):
        module.in_field(x, None, sources[1:], charges, 0.0)
    cell = torch.diag(torch.tensor([5.0, 5.0, 5.0]).double()).requires_grad_(True)
    with pytest.raises(PotentialError, match="cell without gradient"):
        module.in_field(x, cell, sources, charges, 0.0)
    moved = x.clone().requires_grad_(True)
    with pytest.raises(PotentialError, match="first derivatives"):
        energy = module.in_field(moved, None, sources, charges, 0.0)[0].sum()
        torch.autograd.grad(energy, moved, create_graph=True)
    with pytest.raises(PotentialError, match="kernel = auto"):
        AMPPotential.from_file(WEIGHTS, kernel="fast")


def test_a_module_from_another_process_says_so(tmp_path):
    """Weights are kept by the process that loaded them: a saved module without them is no other energy."""
    path = tmp_path / "module.pt"
    torch.jit.save(torch.jit.script(module_of("water", "native").eval()), str(path))
    code = (
        "import torch, mlmm.potentials.amp_bms.native\n"
        f"module = torch.jit.load({str(path)!r})\n"
        "try:\n    module(torch.eye(3).double() * 0.1, None)\n"
        "except Exception as error:\n    print('saved by another process' in str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True", done.stderr
