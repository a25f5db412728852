"""A run directory as one self-contained HTML page."""

from mlmm.report.page import write_report

__all__ = ["write_report"]
