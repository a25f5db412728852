"""The loop of a fit on straight lines: best weights kept, patience, members that are independent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlmm.learning.training.loop import bootstrap_weights, fit
from mlmm.learning.training.loss import Predictions, losses
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import Targets

#: The first are for validation, the last for training.
TRAIN, VALIDATION = range(10, 40), range(10)
FEATURES = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


class Lines(torch.nn.Module):
    """Energies w·x of structures of one atom, without forces; a line for each member."""

    def __init__(self, starts: list[float]):
        super().__init__()
        self.members, self.rates = len(starts), {}
        self.weight = torch.nn.Parameter(torch.tensor(starts).unsqueeze(1).repeat(1, 3))

    def forward(self, chosen: torch.Tensor) -> Predictions:
        energies = self.weight @ FEATURES[chosen].T
        return Predictions(energies, torch.zeros(self.members, len(chosen), 3))


def targets_with(train: float, validation: float) -> Targets:
    """Energies of lines of these slopes, the same along all three features."""
    slopes = torch.tensor([validation] * len(VALIDATION) + [train] * len(TRAIN))
    energies = (slopes * FEATURES.sum(dim=1)).double()
    return Targets(energies, torch.zeros(40, 3, dtype=torch.float64), torch.arange(41))


def options(**facts) -> FitOptions:
    given = {"epochs": 40, "batch": 10, "learning_rate": 0.1, "warmup": 0, "averaging": 0.0} | facts
    return FitOptions(energy_weight="1 1/A^2", weight_decay=0.0, **given)


def fitted(starts: list[float], targets: Targets, **facts):
    model = Lines(starts)
    return model, fit(model, targets, TRAIN, VALIDATION, options(**facts))


@pytest.mark.parametrize("members", [1, 2])
def test_the_best_weights_are_kept(members):
    """Training goes to 10, validation is best at 3; control: the last epoch is far from it."""
    targets = targets_with(10.0, 3.0)
    model, result = fitted([0.0, 1.0][:members], targets, bootstrap=False, patience=40)
    history = np.array([report.validation for report in result.history])
    assert len(history) == 40 and np.allclose(result.best, history.min(axis=0), rtol=0, atol=0)
    chosen = torch.tensor(VALIDATION)
    with torch.no_grad():
        again = losses(model(chosen), targets, chosen, options(), centred=True).mean(dim=1)
    assert np.allclose(again.numpy(), result.best, rtol=1e-6)
    assert np.abs(model.weight.detach().numpy() - 3.0).max() < 1.0
    assert (history[-1] > 20.0 * history.min(axis=0)).all()


def test_a_fit_ends_after_its_patience():
    """So many epochs after the best one, of 40; control: with more patience it goes on."""
    for patience in (4, 9):
        _, result = fitted([0.0], targets_with(10.0, 3.0), patience=patience)
        best = int(np.argmin([report.validation[0] for report in result.history]))
        assert result.epochs == best + 1 + patience + 1 < 40


def test_gradients_are_clipped_for_each_member_by_itself():
    """A member that is far off changes no bit of another; control: it does not stay where it was."""
    (near, _), (beside, _) = (
        fitted([0.0, other], targets_with(2.0, 2.0), bootstrap=False, clip=0.5) for other in (1.0, 1e4)
    )
    assert torch.equal(near.weight[0], beside.weight[0])
    assert float((near.weight[0].detach() - 2.0).abs().max()) < 0.5
    assert not torch.equal(near.weight[1], beside.weight[1])


def test_a_member_learns_from_the_structures_that_it_draws():
    """Another label of a structure that the first member did not draw changes the second alone."""
    drawn = bootstrap_weights(2, len(TRAIN), seed=0)
    place = TRAIN[int(((drawn[0] == 0) & (drawn[1] > 0)).nonzero()[0])]
    targets = targets_with(2.0, 2.0)
    other = targets.shifted(torch.zeros(40).index_fill(0, torch.tensor([place]), 3.0))
    (one, _), (two, _) = (fitted([0.0, 0.0], t, seed=0) for t in (targets, other))
    assert torch.equal(one.weight[0], two.weight[0]) and not torch.equal(one.weight[1], two.weight[1])
    without, _ = fitted([0.0, 0.0], targets, bootstrap=False)
    assert torch.equal(without.weight[0], without.weight[1]) and not torch.equal(one.weight[0], one.weight[1])
