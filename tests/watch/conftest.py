"""The live page at work in a thread, over runs of the test's own."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nextword.serve.options import ServeSettings


@contextlib.contextmanager
def watching(run: Path, port: int = 0) -> Iterator[tuple[str, str]]:
    """Serve the page; give its address and token."""
    import uvicorn

    from nextword.serve.start import open_door
    from nextword.watch.app import Watched, build

    watched = Watched(run.parent, run.name)
    with open_door("127.0.0.1", port) as door:
        settings = ServeSettings(port=door.getsockname()[1])
        config = uvicorn.Config(
            build(watched, settings), log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{door.getsockname()[1]}", watched.token
        server.should_exit = True
        thread.join(timeout=60)
    assert not thread.is_alive()


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
