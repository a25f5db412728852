"""The script that prints the fault table starts: its run goes through `mlmm run` and gives results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
BEGIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fault_table import Table
table = Table(Path(sys.argv[2]), kills=0, seed=0)
print(table.whole["state"], len(table.whole["rows"].splitlines()))
"""


def test_the_undisturbed_run_of_the_fault_table_finishes(tmp_path):
    """A row per four steps of 10, 100 and 20 fs, and the header."""
    made = subprocess.run(
        [sys.executable, "-c", BEGIN, str(TESTS), str(tmp_path)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["finished", "66"]
