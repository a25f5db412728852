"""``python -m mlmm.cli``, where the program `mlmm` is not on the path."""

from mlmm.cli.program import main

raise SystemExit(main())
