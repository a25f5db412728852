"""HCN, whose hydrogen goes round to the other end: structures, and the scan of a run file by GFN2-xTB."""

from __future__ import annotations

CYANIDE = "3\nHCN\nH -1.066 0.05 0\nC 0 0 0\nN 1.157 0 0\n"
ISOCYANIDE = "3\nHNC\nH 2.16 0.05 0\nC 0 0 0\nN 1.157 0 0\n"
SCAN = """
[surface]
molecule = "hcn.xyz"
method = "gfn2"
workers = 2

[variable.turn]
kind = "difference"
groups = ["element H", "element C", "element H", "element N"]

[scan]
variables = ["turn"]
start = ["-0.08 nm"]
end = ["0.07 nm"]
points = [6]
"""
