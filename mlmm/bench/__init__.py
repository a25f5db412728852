"""What a step of a hybrid system costs on this machine, and how the cost is divided."""

from mlmm.bench.step_cost import StepCost, measure_step

__all__ = ["StepCost", "measure_step"]
