"""What a step costs: systems of growing size, variants interleaved in one process, a table with its limit."""

from mlmm.bench.report import BenchReport
from mlmm.bench.suites import SUITES, run_bench
from mlmm.bench.variants import VARIANTS

__all__ = ["SUITES", "VARIANTS", "BenchReport", "run_bench"]
