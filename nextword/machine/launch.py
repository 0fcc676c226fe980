"""Several processes on this machine for one command: torch's elastic agent, as in torchrun."""

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nextword.base.errors import LEFT_ALONE

LAST_LINES = 5
"""Of what a process that failed has said, that are shown."""


class Ended(NamedTuple):
    """How several processes have ended."""

    status: int
    """That the command ends with."""
    words: str = ""
    """What is still to be said; nothing where the first process has said it."""
    failed: str = ""
    """Which process failed, and how; nothing where none did or all were told to stop."""


def launch(command: Sequence[str], processes: int) -> Ended:
    """Run one of the program's commands as several processes that work together.

    The first says what it has to say here; the others write to files of their own. Where one ends
    with a mistake, all others are ended. A signal is handed on, so that they save and stop.

    Args:
        command: what follows `nextword`.
        processes: how many; each takes one of the machine's accelerators, or its share of the
            processor's cores.

    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # said here, in one line
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    logs = Path(tempfile.mkdtemp(prefix="nextword-processes-"))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=logs.name, max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="spawn",
        logs_specs=DefaultLogsSpecs(str(logs), dict.fromkeys(range(1, processes), Std.ALL)),
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "nextword", *command)
    except SignalException as stopped:
        shutil.rmtree(logs, ignore_errors=True)
        return Ended(128 + int(stopped.sigval))
    except ChildFailedError as error:
        # Who was left alone, or ended by the agent, is not the one that failed.
        of_itself = {
            rank: one for rank, one in error.failures.items()
            if one.exitcode not in (LEFT_ALONE, -signal.SIGTERM)
        }  # fmt: skip
        first = min(of_itself.items(), key=lambda one: one[1].timestamp, default=None)
        rank, failure = first or error.get_first_failure()
        status = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
        how = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"status {status}"
        told = f"process {rank} of {processes} has ended with {how}"
        if rank:
            words = f"{told}{_last_words(logs, rank)}; {logs} holds all"
            return Ended(status, words, told)
        shutil.rmtree(logs, ignore_errors=True)
        # Else it has said why itself.
        return Ended(status, told if failure.exitcode < 0 else "", told)
    shutil.rmtree(logs, ignore_errors=True)
    return Ended(0)


def _last_words(logs: Path, rank: int) -> str:
    for file in logs.glob(f"*/attempt_0/{rank}/stderr.log"):
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.removeprefix("nextword: ") for line in lines if line.strip()]
        if said:
            return ": " + " ".join(said[-LAST_LINES:])
    return ""
