"""The live page at work in a thread."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nextword.serve.options import ServeSettings


@contextlib.contextmanager
def watching(run: Path, port: int = 0) -> Iterator[tuple[str, str]]:
    """Serve the page; give its address and token."""
    from nextword.serve.doors import in_thread  # not sooner: torch takes its threads by then
    from nextword.watch.app import Watched, build

    watched = Watched(run.parent, run.name)
    with in_thread(build(watched, ServeSettings()), port) as address:
        yield address, watched.token


@pytest.fixture
def live(run) -> Iterator[str]:
    """The page's address."""
    with watching(run) as (address, _):
        yield address
