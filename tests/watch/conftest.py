"""The live page at work in a thread."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def faults(page: Any, axe: str) -> list[Any]:
    """What axe finds wrong on a page as it stands, and whether it is wider than the window."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    told = [
        (one["id"], [node["html"][:100] for node in one["nodes"][:3]])
        for one in found["violations"]
    ]
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [*told, *([f"{wide} pixels too wide"] if wide > 0 else [])]


@pytest.fixture
def live(run) -> Iterator[str]:
    """The page's address."""
    with watching(run) as (address, _):
        yield address
