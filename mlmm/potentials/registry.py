"""Potentials by name or file: `load_potential` finds the weights and the adapter that reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from mlmm.errors import PotentialError
from mlmm.potentials.ani.files import load_ani_file
from mlmm.potentials.ani.fixed_shape import NEIGHBOUR_DENSITY
from mlmm.potentials.ani.neurochem import read_neurochem
from mlmm.potentials.ani.potential import ANIPotential
from mlmm.potentials.base import PotentialModel
from mlmm.potentials.calibration import Calibration
from mlmm.potentials.known import (
    check_checksum,
    existing_file,
    installed_file,
    known_by_name,
    parts_of,
    plugin_names,
)
from mlmm.potentials.trained_files import FIELD_KINDS, GRAPH_KIND, KERNEL_KINDS, learned_facts
from mlmm.potentials.training import check_polarisation_scaling

__all__ = ["load_potential"]

_FACTS = ("name", "trained_on", "level_of_theory", "licence", "citation")


def load_potential(
    name: str,
    *,
    members: Sequence[int] | None = None,
    precision: str = "float32",
    device: str = "cpu",
    kernel: str = "auto",
    shapes: str = "auto",
    neighbour_density: float = NEIGHBOUR_DENSITY,
    polarisation_scaling: float | None = None,
    trust: bool = False,
) -> PotentialModel:
    """Load a pretrained potential.

    Parameters
    ----------
    name : str
        A name that ``mlmm models`` lists, such as ``"ani1x"``; the path of an ANI file, NeuroChem folder,
        TorchScript file or model of a package, or a file of `mlmm train`; ``"ase:emt"``,
        ``"tblite:GFN2-xTB"``; or several of them joined by ``+`` for a
        committee. Case and hyphens do not matter in a name.
    members : sequence of int, optional
        Members of an ANI committee to use; all by default.
    precision : {"float32", "float64"}
        Arithmetic of the networks.
    device : str
        A torch device.
    kernel : {"auto", "torch", "native"}
        See `ANIPotential`.
    shapes : {"auto", "fixed", "lists"}
        The same.
    neighbour_density : float
        Atoms per nm³; the same.
    polarisation_scaling : float, optional
        See `AMPPotential`; refused for other potentials.
    trust : bool
        Read files that run code when they are read, such as pickles, or TorchScript that touches files.

    Raises
    ------
    PotentialError
        Unknown name, weights that are not installed or damaged, or a file with code without trust.
    MissingPackageError
        A package that is not installed; the message ends with the line that installs it.
    """
    options: dict[str, Any] = {"precision": precision, "device": device, "trust": trust}
    of_ani: dict[str, Any] = {"kernel": kernel, "shapes": shapes, "neighbour_density": neighbour_density}
    parts = parts_of(name)
    if len(parts) > 1:
        from mlmm.potentials.committee import committee_of

        of_ani["polarisation_scaling"] = polarisation_scaling
        return committee_of([load_potential(part, members=members, **of_ani, **options) for part in parts])
    if polarisation_scaling is not None:
        check_polarisation_scaling(polarisation_scaling, name, known=_is_amp(name))
    known = known_by_name(name)
    if known is not None:
        path, kind, about = installed_file(known), known.kind, dict(known.about)
        # The package's own wheel, and the very file that was published, need no further word.
        options["trust"] = trust or kind == "sevennet" or check_checksum(known, path)
    elif name in plugin_names():
        return _from_plugin(name, precision, device)
    elif name.startswith("ase:"):
        return _from_ase(name.removeprefix("ase:"))
    elif name.startswith("tblite:"):
        from mlmm.potentials.adapters.tblite import TBLitePotential

        return TBLitePotential(name.removeprefix("tblite:"))
    else:
        path, about = existing_file(name), {"name": Path(name).stem}
        kind = _kind_of(path)
    if kind != "ani" and members is not None:
        raise PotentialError("members of an ANI committee only", f"{members} of {name}", "leave members out")
    if kind == "ani":
        if path.is_dir():
            parameters = read_neurochem(path)
        else:
            parameters, own = load_ani_file(path)
            about = about | own
        networks = ANIPotential(
            parameters,
            members=members,
            precision=precision,
            device=device,
            **of_ani,
            **_text(about),
            **_learned(about, str(path)),
        )
        return _on_base(networks, about, options)
    if kind in KERNEL_KINDS:
        return _kernel_model(kind, path, device, options)
    if kind == GRAPH_KIND:
        from mlmm.potentials.adapters.graph_pes import GraphPESPotential

        network = GraphPESPotential.from_file(path, precision=precision, device=device)
        return _on_base(network, network.about, options)
    if kind == "amp":
        from mlmm.potentials.amp_bms.potential import AMPPotential

        return AMPPotential.from_file(
            path,
            precision=precision,
            device=device,
            kernel=kernel,
            polarisation_scaling=polarisation_scaling,
        )
    if kind == "field_ani":
        from mlmm.potentials.field_ani.potential import FieldANIPotential

        return FieldANIPotential.from_file(path, precision=precision, device=device, kernel=kernel)
    if kind == "torchscript":
        from mlmm.potentials.adapters.torchscript import TorchScriptPotential

        return TorchScriptPotential(path, device, trust)
    model = _from_package(kind, path, options, _text(about))
    if known is not None:
        model.spec = dataclasses.replace(model.spec, trained_charges=known.spec.trained_charges)
    return model


def _is_amp(name: str) -> bool:
    """Whether a name or file is AMP-BMS or was trained from it."""
    known = known_by_name(name)
    if known is not None:
        return known.kind == "amp"
    if name in plugin_names() or name.startswith(("ase:", "tblite:")):
        return False
    return _kind_of(existing_file(name)) == "amp"


def _on_base(model: PotentialModel, about: Mapping[str, Any], options: Mapping[str, Any]) -> PotentialModel:
    """The model, or its sum with the base that its file names."""
    if not about.get("base") or about.get("trained_on") == "correction":
        return model
    from mlmm.potentials.difference import DifferencePotential

    return DifferencePotential(load_potential(about["base"], **options), model)


def _kernel_model(kind: str, path: Path, device: str, options: Mapping[str, Any]) -> PotentialModel:
    """A Gaussian process or a gradient-domain model; both are evaluated in float64."""
    from mlmm.potentials.kernel_models.gdml import GDMLPotential
    from mlmm.potentials.kernel_models.sparse_gp import SparseGPPotential

    model = GDMLPotential.from_file(path, device) if kind == "gdml" else SparseGPPotential.from_file(path)
    return _on_base(model, model.about, options)


def _learned(about: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a file of a training says beside texts."""
    found: dict[str, Any] = {}
    if "trained_charges" in about:
        found["trained_charges"] = tuple(int(charge) for charge in about["trained_charges"])
    if about.get("calibration"):
        found["calibration"] = Calibration.from_facts(about["calibration"], where)
    return found


def _text(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: about[key] for key in _FACTS if key in about}


def _kind_of(path: Path) -> str:
    """Which adapter reads a file, by what is inside it and, for pickles, by its name."""
    from mlmm.potentials.adapters.torchscript import is_torchscript

    if path.is_dir():
        return "ani"
    kinds = [key for key in learned_facts(path) if key in (*KERNEL_KINDS, *FIELD_KINDS, GRAPH_KIND)]
    if kinds:
        return kinds[0]
    if is_torchscript(path) or (path.suffix in (".pt", ".jpt") and not is_zipfile(path)):
        return "torchscript"
    return {".model": "mace", ".pth": "sevennet", ".pt": "aimnet", ".jpt": "aimnet"}.get(path.suffix, "ani")


def _from_package(
    kind: str, path: Path, options: Mapping[str, Any], about: Mapping[str, Any]
) -> PotentialModel:
    load: Callable[..., PotentialModel]
    if kind == "mace":
        from mlmm.potentials.adapters.mace import load_mace

        load = load_mace
    elif kind == "sevennet":
        from mlmm.potentials.adapters.sevennet import load_sevennet

        load = load_sevennet
    else:
        from mlmm.potentials.adapters.aimnet import load_aimnet

        load = load_aimnet
    return load(path, **options, **about)


def _from_ase(name: str) -> PotentialModel:
    """A calculator that ASE knows by name, with its own defaults; it may know any element."""
    from mlmm.potentials.adapters.ase import ASEPotential, ase_calculator

    return ASEPotential(ase_calculator(name)(), name=f"ASE {name}", elements=range(1, 119))


def _from_plugin(name: str, precision: str, device: str) -> PotentialModel:
    """A potential of another package: its entry point is called with precision and device."""
    (point,) = metadata.entry_points(group="mlmm.potentials", name=name)
    try:
        model = point.load()(precision=precision, device=device)
    except (ImportError, AttributeError, TypeError) as error:
        raise PotentialError(
            f"the entry point {point.value} of {name} as a function load(*, precision, device)",
            f"{type(error).__name__}: {error}",
            "correct the package that registers it",
        ) from error
    if not isinstance(model, PotentialModel):
        raise PotentialError(
            f"a potential with spec and atom_energies from {point.value}",
            type(model).__name__,
            "run mlmm.check_potential in the tests of that package",
        )
    return model
