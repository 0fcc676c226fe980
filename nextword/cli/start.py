"""Entry of the command line as a process: run `main`, and end at once."""

import atexit
import os
import sys

from nextword.base.terminal import as_utf8, speak_utf8
from nextword.cli.program import main


def start() -> None:
    """Run one command and end the process with its status.

    Python takes a good second to take torch apart that the system takes apart in none, and of
    several processes now and then one ends by SIGABRT meanwhile, where a thread of gloo's runs.
    What was to be done at the end (`atexit`) is done before; `main` has flushed the output.
    """
    speak_utf8(sys.stdout, sys.stderr)
    try:
        main([as_utf8(word) for word in sys.argv[1:]])
        status: object = 0
    except SystemExit as left:
        status = left.code or 0
    if "torch" not in sys.modules or not isinstance(status, int):
        sys.exit(status)  # type: ignore[arg-type]
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(status)
