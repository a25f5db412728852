"""The loop that fits weights to energies and forces; killed at any moment, it goes on to the same bits.

AdamW with a linear start and a cosine to the end, gradients clipped for each member of a committee by itself,
a running mean of the weights, early stopping by a validation set for each member. Nothing random has a state:
the order of an epoch comes from the seed and its number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from mlmm.errors import SimulationError
from mlmm.learning.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from mlmm.learning.training.loss import Predictions, losses
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import Targets

__all__ = ["EpochReport", "FitResult", "Trainable", "bootstrap_weights", "fit"]


class Trainable(Protocol):
    """A `torch.nn.Module` that knows the structures of a set and predicts those that it is asked for.

    Attributes
    ----------
    members : int
        Members of the committee. With more than one, every parameter has them as its first dimension; with
        one, parameters have any shape.
    rates : dict of str to float
        Learning rate of parameters by the beginning of their names, relative to that of the options; 1 for
        others.
    """

    members: int
    rates: dict[str, float]

    def __call__(self, chosen: torch.Tensor) -> Predictions:
        """Predict structures (B,); differentiable in the parameters, forces too."""
        ...


@dataclass(frozen=True)
class EpochReport:
    """How far a fit is.

    Parameters
    ----------
    epoch, epochs : int
    loss : float
        Mean over the epoch and the members.
    validation : list of float
        Loss of each member on the validation set, a constant energy removed.
    best : list of float
        The smallest of each so far.
    active : int
        Members that have not stopped yet.
    """

    epoch: int
    epochs: int
    loss: float
    validation: list[float]
    best: list[float]
    active: int


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves: the model holds the best weights of each member.

    Parameters
    ----------
    epochs : int
        That were made.
    best : list of float
        Validation loss of each member.
    history : list of EpochReport
    """

    epochs: int
    best: list[float]
    history: list[EpochReport] = field(repr=False)


def bootstrap_weights(members: int, structures: int, seed: int) -> torch.Tensor:
    """How often each member draws each structure, (members, structures): all rows sum to their number."""
    random = torch.Generator().manual_seed(seed + 7919)
    rows = [
        torch.bincount(torch.randint(structures, (structures,), generator=random), minlength=structures)
        for _ in range(members)
    ]
    return torch.stack(rows).to(torch.float32)


def fit(
    model: Trainable,
    targets: Targets,
    train: Sequence[int],
    validation: Sequence[int],
    options: FitOptions | None = None,
    *,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Callable[[EpochReport], None] | None = None,
) -> FitResult:
    """Fit the parameters of a model that require gradients; it ends with the best weights of each member.

    Parameters
    ----------
    model : Trainable
        A `torch.nn.Module`.
    targets : Targets
        References removed.
    train, validation : sequence of int
        Structures of the set.
    options : FitOptions, optional
    checkpoint : Path, optional
        Written after each epoch; where there is one of this fit, the fit goes on from it.
    fingerprint : str
        Of data and model; a checkpoint of another fit is refused.
    progress : callable, optional
        Gets an `EpochReport` after each epoch.

    Raises
    ------
    SimulationError
        A loss that is not finite.
    ConfigError
        A checkpoint of another fit.
    """
    options = options or FitOptions()
    state = _State(model, targets, list(train), list(validation), options)
    print_of_fit = f"{fingerprint} {options!r} {list(train)} {list(validation)}"
    history: list[EpochReport] = []
    if checkpoint is not None and checkpoint.exists():
        history = state.restore(read_checkpoint(checkpoint, print_of_fit))
    while len(history) < options.epochs and (not history or history[-1].active):
        report = state.epoch(len(history))
        history.append(report)
        if checkpoint is not None:
            write_checkpoint(checkpoint, state.saved(history), print_of_fit)
        if progress is not None:
            progress(report)
    state.take_best()
    return FitResult(len(history), state.best, history)


class _State:
    """Everything that changes during a fit."""

    def __init__(
        self, model: Trainable, targets: Targets, train: list[int], validation: list[int], options: FitOptions
    ):
        self.model, self.targets, self.options = model, targets, options
        module = cast("torch.nn.Module", model)
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.device = next(iter(self.parameters.values())).device
        self.train, self.validation = torch.tensor(train), torch.tensor(validation)
        self.rates = {
            name: next((rate for start, rate in model.rates.items() if name.startswith(start)), 1.0)
            for name in self.parameters
        }
        self.optimiser = torch.optim.AdamW(
            [{"params": [p], "lr": 0.0, "name": name} for name, p in self.parameters.items()],
            weight_decay=options.weight_decay,
            foreach=False,
        )
        self.mean = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        members = model.members
        self.best, self.since = [math.inf] * members, [0] * members
        self.weights = torch.ones(members, len(targets))
        if options.bootstrap and members > 1:
            self.weights = torch.zeros(members, len(targets))
            self.weights[:, self.train] = bootstrap_weights(members, len(train), options.seed)
        self.steps_of_epoch = math.ceil(len(train) / options.batch)

    def epoch(self, number: int) -> EpochReport:
        """One pass over the training set, and the validation after it."""
        options = self.options
        random = torch.Generator().manual_seed(1_000_003 * options.seed + number)
        order = self.train[torch.randperm(len(self.train), generator=random)]
        total, count = 0.0, 0
        for k, chosen in enumerate(order.split(options.batch)):
            loss = self._step(chosen, number * self.steps_of_epoch + k)
            total, count = total + loss * len(chosen), count + len(chosen)
        found = self._validate()
        for k, value in enumerate(found):
            self.since[k] += 1
            # A member that has stopped stays as it is.
            if value < self.best[k] and self.since[k] <= options.patience:
                self.best[k], self.since[k] = value, 0
                for name, kept in self.kept.items():
                    if self.model.members > 1:
                        kept[k] = self._averaged(name)[k]
                    else:
                        kept.copy_(self._averaged(name))
        active = sum(since <= options.patience for since in self.since)
        return EpochReport(number + 1, options.epochs, total / count, found, list(self.best), active)

    def _averaged(self, name: str) -> torch.Tensor:
        return self.mean[name] if self.options.averaging else self.parameters[name].detach()

    def _step(self, chosen: torch.Tensor, step: int) -> float:
        rate = self._rate(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * self.rates[group["name"]]
        self.optimiser.zero_grad(set_to_none=True)
        by_member = losses(self.model(chosen), self.targets, chosen, self.options)
        weighted = (by_member * self.weights[:, chosen].to(by_member.device)).mean(dim=1)
        total = weighted.sum()
        value = float(total.detach()) / len(weighted)
        if not math.isfinite(value):
            raise SimulationError(
                "a finite loss",
                f"{value} in step {step + 1}",
                "lower learning_rate, or look for labels that are far from all others",
            )
        total.backward()
        self._clip()
        self.optimiser.step()
        keep = min(self.options.averaging, (step + 1) / (step + 10))
        for name, parameter in self.parameters.items():
            self.mean[name].lerp_(parameter.detach(), 1.0 - keep)
        return value

    def _rate(self, step: int) -> float:
        options = self.options
        last = options.epochs * self.steps_of_epoch
        fall = 0.5 * (1.0 + math.cos(math.pi * step / last))
        start = min(1.0, (step + 1) / options.warmup) if options.warmup else 1.0
        return float(options.learning_rate * start * (options.final_rate + (1.0 - options.final_rate) * fall))

    def _clip(self) -> None:
        """Limit the norm of the gradient, of each member by itself."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        members = self.model.members
        if members == 1:
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.options.clip)
            return
        squares = sum((g.reshape(members, -1).square().sum(dim=1) for g in gradients), torch.zeros(()))
        scale = (self.options.clip / squares.sqrt()).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.reshape(-1, *[1] * (gradient.dim() - 1)))

    def _validate(self) -> list[float]:
        """Loss of each member with the averaged weights; the offset of the energy is set after training."""
        module = cast("torch.nn.Module", self.model)
        weights = {name: self._averaged(name) for name in self.parameters}
        parts = []
        for chosen in self.validation.split(self.options.batch):
            found = torch.func.functional_call(module, weights, (chosen,))
            outside = found.external_forces
            outside = None if outside is None else outside.detach()
            parts.append(Predictions(found.energies.detach(), found.forces.detach(), outside))
        joined = Predictions.joined(parts)
        found_losses = losses(joined, self.targets, self.validation, self.options, centred=True)
        return [float(value) for value in found_losses.mean(dim=1)]

    def take_best(self) -> None:
        """Give the model the best weights of each member."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.kept[name])

    def saved(self, history: list[EpochReport]) -> Checkpoint:
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            tensors |= {f"now.{name}": parameter.detach(), f"mean.{name}": self.mean[name]}
            tensors[f"kept.{name}"] = self.kept[name]
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        facts: dict[str, Any] = {"best": self.best, "since": self.since}
        facts["history"] = [vars(report) for report in history]
        return Checkpoint(tensors, facts)

    def restore(self, found: Checkpoint) -> list[EpochReport]:
        """Take up what `saved` gave; returns the history."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found.tensors[f"now.{name}"])
                self.mean[name].copy_(found.tensors[f"mean.{name}"])
                self.kept[name].copy_(found.tensors[f"kept.{name}"])
                state = self.optimiser.state[parameter]
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    value = found.tensors[f"adam.{key}.{name}"]
                    state[key] = value if key == "step" else value.to(parameter.device)
        self.best, self.since = list(found.facts["best"]), list(found.facts["since"])
        return [EpochReport(**report) for report in found.facts["history"]]
