"""A server on a free port of this machine, in a thread, that serves the small run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
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
    """Serve for as long as the context lasts.

    Imported here, for torch takes its threads when it is imported, and each process its share of
    the cores only after the folder's first files were read.
    """
    from nextword.serve.app import Served, build
    from nextword.serve.doors import in_thread
    from nextword.serve.start import open_engines

    settings = ServeSettings(port=0, **{"slots": 8, **options})
    engines = open_engines(targets, settings, "cpu")
    with in_thread(build(Served(engines, settings))) as address:
        yield Running(address, engines)


@contextlib.contextmanager
def client_of(server: Running) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, which is not to try again what went wrong."""
    known = {"base_url": f"{server.address}/v1", "api_key": "none", "max_retries": 0}
    with openai.OpenAI(**known, timeout=300) as client:
        yield client


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
