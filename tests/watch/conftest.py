"""The live page at work in a thread, over runs of the test's own."""

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
def run(place, trained) -> Path:
    """A small run that the test may change."""
    options = ["--training.steps", "12", "--corpus.stories", "400"]
    options += ["--training.evaluate-every", "4", "--training.checkpoint-every", "6"]
    trained.copy_to(place, "train", "--name", "small", *options)
    return place.folder / "runs" / "small"


@pytest.fixture
def live(run) -> Iterator[str]:
    """The page's address."""
    with watching(run) as (address, _):
        yield address
