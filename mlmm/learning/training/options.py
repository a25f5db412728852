"""Options of training as one schema: units, limits, help. Only the standard library is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from mlmm.options import Quantity, check_fields, documented, number, quantity, setting, word

__all__ = ["STARTS", "FitOptions", "GraphOptions", "KernelOptions", "NetworkOptions"]

#: Where network weights come from.
STARTS = ("ani1x", "ani1ccx", "ani2x", "scratch")


@documented
@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How weights are fitted: loss, optimiser, schedule, stopping.

    The loss of a structure is w_E dE² + mean dF² + w_x mean dF_x², with the errors of its energy, of the
    components of the forces on its atoms and on the point charges around it.
    """

    epochs: int = number(300, "passes over the training set, at most", least=1)
    batch: int = number(12, "structures in one step of the optimiser", least=1)
    learning_rate: float = number(5e-4, "largest step of AdamW for network weights", above=0)
    warmup: int = number(20, "steps over which the learning rate rises from zero", least=0)
    final_rate: float = number(
        0.02, "learning rate at the end, as a share; falls as a cosine", least=0, most=1
    )
    weight_decay: float = number(1e-5, "of AdamW", least=0)
    clip: float = number(50.0, "largest norm of a gradient, with errors in kcal/mol and angstrom", above=0)
    averaging: float = number(
        0.98,
        "share of the old in the running mean of the weights that is kept; 0 for none",
        least=0,
        most=0.9999,
    )
    energy_weight: Quantity = quantity(
        "0.01 1/A^2", "inverse area", "w_E; small: forces hold most of what a label tells", least=0
    )
    external_weight: float = number(100.0, "w_x; for models that see charges around the molecule", least=0)
    patience: int = number(60, "epochs without a better validation before a member stops", least=1)
    bootstrap: bool = setting(True, "draw the structures of each member of a committee with replacement")
    seed: int = number(0, "of weights, order and bootstrap", least=0)

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which networks are trained, and which of their weights."""

    start: str = setting(
        "ani1x", "weights at the start: ani1x, ani1ccx, ani2x, a file of networks, or scratch"
    )
    members: int = number(4, "networks in the committee", least=1, most=64)
    hidden: tuple[int, ...] = setting(
        (64, 48), "widths of the hidden layers of networks from scratch", item=int
    )
    descriptor: str = word(
        "ani1x", ("ani1x", "ani2x"), "whose constants the symmetry functions of networks from scratch have"
    )
    update: str = word("full", ("full", "low-rank"), "all of a matrix of weights changes, or a low-rank part")
    rank: int = number(8, "of the part that changes under update = low-rank", least=1)
    freeze: int = number(0, "first layers that stay as they were", least=0)

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Message-passing networks of the package graph-pes."""

    start: str = setting(
        "scratch", "weights at the start: scratch, or a file of an earlier training, which sets the rest"
    )
    architecture: str = word(
        "painn", ("painn", "tensornet"), "of the network; energies of both are smooth at the cutoff"
    )
    channels: int = number(32, "features of an atom", least=4, most=1024)
    layers: int = number(
        3, "passes of messages; an atom sees so many cutoffs, in tensornet one more", least=1, most=10
    )
    cutoff: Quantity = quantity("0.5 nm", "length", "distance of direct neighbours", above=0.1)

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True, kw_only=True)
class KernelOptions:
    """Gaussian process and gradient-domain models."""

    descriptor: str = word("ani1x", ("ani1x", "ani2x", "soap"), "of a Gaussian process; soap needs dscribe")
    inducing: int = number(1000, "atoms that represent all in a sparse Gaussian process", least=10)
    length: float = number(0.0, "length of the kernel, in its descriptors' own units; 0: chosen", least=0)
    noise: float = number(1e-9, "relative ridge of sGDML", above=0)
    permutations: tuple[str, ...] = setting(
        (), 'of equivalent atoms, for sGDML: each a list such as "0 2 1 3"', example=("0 1 2", "0 2 1")
    )

    def __post_init__(self) -> None:
        check_fields(self)
