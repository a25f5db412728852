"""Figures with limits, and tables, that a check of a hybrid system returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mlmm.short_repr import ShortRepr

__all__ = ["CheckReport", "CheckResult", "aligned"]


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of text as columns, two blanks between; the first `left` columns flush left, the others right.

    Parameters
    ----------
    rows : sequence of sequences of str
        All of one length.
    left : int
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines.append("  ".join(c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in enumerate(cells)))
    return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class CheckResult:
    """One figure and what it should be.

    Parameters
    ----------
    name, unit : str
    value : float
    error : float or None
        Standard error, for sampled figures.
    limit : float or None
        None for a figure that is only shown.
    passed : bool
    detail : str
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    error: float | None = None
    passed: bool = True
    detail: str = ""


@dataclass(frozen=True, repr=False)
class CheckReport(ShortRepr):
    """All figures of a check; prints as a table.

    Parameters
    ----------
    results : tuple of CheckResult
    tables : tuple of str
        Further tables, printed below.
    """

    results: tuple[CheckResult, ...]
    tables: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every figure is within its limit."""
        return all(result.passed for result in self.results)

    def _summary(self) -> dict[str, str]:
        failed = [result.name for result in self.results if not result.passed]
        return {
            "figures": str(len(self.results)),
            "verdict": f"failed: {', '.join(failed)}" if failed else "all within their limits",
        }

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        rows = [("check", "value", "limit", "", "")]
        for r in self.results:
            value = f"{r.value:.3g}" + ("" if r.error is None else f" ± {r.error:.2g}") + f" {r.unit}"
            limit = "" if r.limit is None else f"{r.limit:.3g}"
            verdict = "" if r.limit is None else ("ok" if r.passed else "FAILED")
            rows.append((r.name, value.strip(), limit, verdict, r.detail))
        return "\n\n".join((aligned(rows, left=5), *self.tables))
