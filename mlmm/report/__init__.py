"""Did a run go well: its verdict, and a self-contained HTML page of one run or of several."""

from mlmm.report.comparison import write_comparison
from mlmm.report.page import write_report
from mlmm.report.record import read_record, verdict_of

__all__ = ["read_record", "verdict_of", "write_comparison", "write_report"]
