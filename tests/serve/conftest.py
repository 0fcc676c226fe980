"""A server on a free port of this machine, in a thread, that serves the small run."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import nextword
from nextword.serve.options import ServeSettings


@dataclass
class Running:
    """A server at work."""

    address: str
    engines: dict[str, Any]

    @property
    def engine(self) -> Any:
        return next(iter(self.engines.values()))

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(self.address + path, json=body, timeout=300)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.address + path, timeout=60, **options)

    def complete(self, prompt: Any, **body: Any) -> dict[str, Any]:
        answered = self.post("/v1/completions", prompt=prompt, **body)
        assert answered.status_code == 200, answered.text
        return answered.json()

    def choice(self, prompt: Any, **body: Any) -> dict[str, Any]:
        return self.complete(prompt, **body)["choices"][0]


@contextlib.contextmanager
def running(*targets: str, **options: Any) -> Iterator[Running]:
    """Serve for as long as the context lasts."""
    import uvicorn

    from nextword.serve.app import Served, build
    from nextword.serve.start import open_door, open_engines

    settings = ServeSettings(port=0, **{"slots": 8, **options})
    engines = open_engines(targets, settings, "cpu")
    door = open_door(settings.host, settings.port)
    config = uvicorn.Config(
        build(Served(engines, settings)), log_level="warning", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    with door:
        yield Running(f"http://127.0.0.1:{door.getsockname()[1]}", engines)
        server.should_exit = True
        thread.join(timeout=60)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def small_place(shared, small_run) -> Iterator[str]:
    """The path of the small run."""
    return str(shared.folder / "runs" / small_run)


@pytest.fixture(scope="module")
def server(small_place) -> Iterator[Running]:
    with running(small_place) as found:
        yield found


@pytest.fixture(scope="session")
def small(small_place) -> Any:
    """The small run, as Python opens it."""
    return nextword.load(small_place, device="cpu")
