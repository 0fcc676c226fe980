"""Serves the live page to this machine's browser, or writes it as one file."""

import contextlib
import logging
import os
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nextword import __version__
from nextword.base.errors import SettingsError
from nextword.base.files import check_output, write_output
from nextword.prediction.loading import find_run, run_facts
from nextword.training.changes import other_writer
from nextword.watch.series import Series

LOCAL = "127.0.0.1"


def watch_run(
    name: str,
    port: int,
    *,
    opens: bool,
    say: Callable[[str], None],
    until: threading.Event | None = None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        name: of the run that it begins with; `latest` for the newest.
        port: to listen on, on this machine alone; 0 for any.
        opens: open it in the browser.
        say: tells the user where it is.
        until: ends it when it is set; the next free port is taken then, where one is taken.

    Raises:
        NextwordError: there is no such run, or the port cannot be listened on.
    """
    run = find_run(name)
    if (writer := other_writer(run_facts(run))) is not None:
        say(f"{run.name}: written by nextword {writer}; this is {__version__}")
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # training comes first
    series = Series(run)
    # A log of a million steps takes seconds: it is read while all else is made ready.
    threading.Thread(target=series.update, daemon=True).start()
    try:
        import uvicorn

        from nextword.serve.options import ServeSettings
        from nextword.serve.ports import is_free, next_free, open_door
        from nextword.watch.app import Watched, build
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"watching needs the package {error.name}: pip install 'nextword[serve]'"
        ) from None
    if until is not None:
        port = port if is_free(LOCAL, port) else next_free(LOCAL, port) or 0
    settings = ServeSettings(host=LOCAL, port=port)
    with open_door(LOCAL, port) as door:
        address = f"http://{LOCAL}:{door.getsockname()[1]}"
        say(f"{run.name}: {address} (Ctrl-C ends)")
        if opens and not webbrowser.open(address):
            say(f"no browser was found; open {address} in one")
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        config = uvicorn.Config(
            build(Watched(run.parent, run.name, series), settings), access_log=False, ws="none",
            log_level="warning", server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        if until is not None:
            threading.Thread(target=_end_with, args=(until, server), daemon=True).start()
        server.run(sockets=[door])


def _end_with(gone: threading.Event, server: Any) -> None:
    gone.wait()
    server.should_exit = True


def export(name: str, file: Path, *, force: bool) -> None:
    """Write a run's page as one HTML file that asks nothing of the network.

    Raises:
        NextwordError: there is no such run, or the file cannot be written.
    """
    from nextword.watch.app import POINTS, describe, page

    check_output(file, force=force)
    run = find_run(name)
    series = Series(run)
    series.update()
    data = {
        "run": describe(run, series),
        "curve": series.thinned(POINTS),
        "moments": series.moments,
    }
    write_output(file, page(run.name, data=data), force=force)
