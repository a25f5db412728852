"""Runs the code of a notebook, cell after cell in one namespace, as Jupyter would, without Jupyter.

python tests/notebooks.py NOTEBOOK [OLD NEW …]

The value of a cell's last expression is shown as a front end would ask for it: `_repr_html_`, else `repr`.
Every OLD text has to occur in the code, and is replaced.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path


def code_cells(path):
    """Source of every code cell."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_notebook(path, replaced):
    """Execute; returns what the cells show."""
    names, shown = {"__name__": "__main__"}, []
    cells = code_cells(path)
    for old, new in replaced.items():
        assert any(old in cell for cell in cells), f"{old} stands in no cell"
        cells = [cell.replace(old, new) for cell in cells]
    for k, cell in enumerate(cells):
        tree = ast.parse(cell)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{path}[{k}]", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"{path}[{k}]", "eval"), names)
            if value is not None:
                shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    return shown


if __name__ == "__main__":
    pairs = sys.argv[2:]
    print("\n".join(run_notebook(sys.argv[1], dict(zip(pairs[::2], pairs[1::2], strict=True)))))
