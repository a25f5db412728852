"""Options of an executor; no numerical library is imported here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlmm.errors import ConfigError
from mlmm.options import check_fields, documented, number, setting

__all__ = ["ExecutorOptions"]


@documented
@dataclass(frozen=True)
class ExecutorOptions:
    """Where independent calculations run, and how often one is tried whose worker died.

    Raises
    ------
    ConfigError
        A value out of range, a scheduler that is none, or GPU ids for workers that are not started here.
    """

    workers: int = number(
        0,
        'worker processes; 0 for one on each core that this process may use, divided by "threads"',
        least=0,
        example=4,
    )
    threads: int = number(1, "threads of each worker, for OpenMP, BLAS, torch and OpenMM alike", least=1)
    gpus: tuple[str, ...] = setting(
        (),
        "GPU ids dealt out to the workers in turn, as CUDA_VISIBLE_DEVICES takes them; none: as it is",
        example=("0", "1"),
    )
    scheduler: str = setting(
        "",
        'empty: processes on this machine; "dask": the same under Dask; "tcp://host:port": a Dask scheduler '
        "that runs; a .toml file: a cluster that dask-jobqueue starts",
        example="tcp://node1:8786",
    )
    retries: int = number(2, "how often a calculation is tried again whose worker died", least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scheduler and self.gpus:
            raise ConfigError(
                "GPU ids without a scheduler",
                f"gpus = {list(self.gpus)} and scheduler = {self.scheduler!r}",
                "set CUDA_VISIBLE_DEVICES where the workers are started, such as job_script_prologue in the "
                "cluster's TOML",
            )
        known = ("tcp://", "tls://", "ws://", "wss://")
        is_file = Path(self.scheduler).suffix == ".toml"
        if self.scheduler not in ("", "dask") and not self.scheduler.startswith(known) and not is_file:
            raise ConfigError(
                'scheduler = "" | "dask" | "tcp://host:port" | "cluster.toml"',
                repr(self.scheduler),
                "correct the scheduler, or leave it out for processes on this machine",
            )

    @property
    def processes(self) -> int:
        """Worker processes on this machine: `workers`, or as many as cores have threads for."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.workers or max(1, cores // self.threads)
