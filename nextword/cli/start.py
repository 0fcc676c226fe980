"""Entry of the command line as a process: run `main`, and end at once."""

import atexit
import os
import sys

from nextword.cli.program import main


def start() -> None:
    """Run one command and end the process with its status.

    Python takes a good second to take torch apart that the system takes apart in none. What was
    to be done at the end (`atexit`) is done and output is flushed before.
    """
    try:
        main()
        status: object = 0
    except SystemExit as left:
        status = left.code or 0
    if "torch" not in sys.modules or "WORLD_SIZE" in os.environ or not isinstance(status, int):
        sys.exit(status)  # type: ignore[arg-type]  # of several processes each waits for the others
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BrokenPipeError:
        status = 141
    os._exit(status)
