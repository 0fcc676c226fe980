"""Opens the models, finds a door that is free, and serves until it is told to end."""

import dataclasses
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import FrameType
from typing import TYPE_CHECKING, Any

from nextword.base.errors import SettingsError
from nextword.base.options import check_options
from nextword.base.terminal import visible
from nextword.serve.options import ServeSettings
from nextword.serve.ports import BACKLOG, open_door

if TYPE_CHECKING:
    from nextword.serve.app import Served

Engines = dict[str, Any]
KEY = "NEXTWORD_API_KEY"
LAST_WORDS = 5
"""Seconds in which whoever is cut off is told so."""


def settings_from(given: Mapping[str, Any]) -> ServeSettings:
    """Take options that were given, and the key from the environment where none was.

    Raises:
        SettingsError: a value is outside its limits.
    """
    settings = ServeSettings(**given)
    if settings.api_key is None and os.environ.get(KEY):
        settings = dataclasses.replace(settings, api_key=os.environ[KEY])
    check_options(settings, "serve")
    if settings.api_key is not None and not settings.api_key.strip():
        raise SettingsError("serve.api_key is empty; give a key of some length, or none")
    return settings


def listen(
    targets: Sequence[str],
    settings: ServeSettings,
    *,
    device: str = "auto",
    say: Callable[[str], None],
) -> None:
    """Serve models until SIGTERM or Ctrl-C; what is under way then is finished.

    Args:
        targets: runs, checkpoints or model folders.
        settings: who may ask, how much, and how many at once.
        device: where to compute.
        say: tells the user where the server is.

    Raises:
        NextwordError: a model cannot be opened, or a port be listened on.
    """
    try:
        import uvicorn

        from nextword.prediction.loading import find_model_folder
        from nextword.serve.app import Served, build
        from nextword.serve.guard import unsafe
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"serving needs the package {error.name}: pip install 'nextword[serve]'"
        ) from None
    for words in unsafe(settings):
        raise SettingsError(words)
    for target in targets:  # one that is not there is said before anything else
        find_model_folder(target)
    with open_door(settings.host, settings.port) as door:
        served = Served(apart(lambda: open_engines(targets, settings, device)), settings)
        config = uvicorn.Config(
            build(served), log_config=_log(), access_log=True, server_header=False,
            backlog=BACKLOG, ws="none",
            timeout_graceful_shutdown=math.ceil(settings.grace_seconds) + LAST_WORDS,
        )  # fmt: skip
        address = f"http://{_shown(settings.host)}:{door.getsockname()[1]}"
        say(f"{', '.join(served.engines)}: {address}/v1 (Ctrl-C ends)")
        _server_class(served)(config).run(sockets=[door])


def apart(work: Callable[[], Engines]) -> Engines:
    """Return what some work returns, done in a thread that ends with it.

    Each thread that has computed in parallel keeps helpers for as long as it lives, and where all
    of them are more than the processors libgomp lets those that wait sleep at once. With the main
    thread's helpers there beside its own, an engine's steps took a third longer on two cores.
    """
    found: Future[Engines] = Future()

    def do() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=do, name="nextword-opening", daemon=True).start()
    return found.result()


def open_engines(targets: Sequence[str], settings: ServeSettings, device: str) -> Engines:
    """Open models, each with an engine of its own.

    Raises:
        NextwordError: one cannot be opened, or writes no text.
    """
    from nextword.machine.options import MachineSettings
    from nextword.prediction.loading import open_model
    from nextword.serve.engine import Engine

    engines: Engines = {}
    for target in targets:
        opened = open_model(target, MachineSettings(device=device))
        first = opened.name if opened.run is None or "@" in target else opened.run.name
        name, number = first, 2
        while name in engines:
            name, number = f"{first}-{number}", number + 1
        engines[name] = Engine(opened, settings.slots, settings.queue)
    return engines


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _server_class(served: "Served") -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        """Ends with the status that whoever watches expects: 0 after what was under way."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.should_exit = True
            ends_at = time.monotonic() + served.settings.grace_seconds
            for engine in served.engines.values():
                engine.ends_at = min(engine.ends_at, ends_at)
            if sig == signal.SIGINT and self._asked:
                self.force_exit = True
            self._asked = True

        _asked = False

    return Server


class _Visible(logging.Formatter):
    """Shows characters that control a terminal as signs, in files too; a path may hold any."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _log() -> dict[str, Any]:
    """Log each request in a line on the error stream."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": _Visible, "fmt": "%(asctime)s %(message)s"}},
        "handlers": {"said": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            name: {"handlers": ["said"], "level": level, "propagate": False}
            for name, level in (
                ("uvicorn.error", "WARNING"), ("uvicorn.access", "INFO"), ("nextword", "INFO"),
            )
        },
    }  # fmt: skip
