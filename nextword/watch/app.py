"""The paths of the live page: the runs, their curves, sentences and samples, and what is asked."""

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from nextword.base.errors import NextwordError, RunError
from nextword.base.writer import holder_of
from nextword.corpus.builtin import worked_odds
from nextword.explanation.replay import PINS, Pin
from nextword.objectives import find_objective
from nextword.prediction.loading import list_runs, run_facts
from nextword.rendering.attention import attention_parts
from nextword.rendering.heat import DARK, HOTTEST_NATS, LIGHT
from nextword.serve.doors import Door, answer_json, application
from nextword.serve.errors import ApiError
from nextword.serve.options import ServeSettings
from nextword.serve.requests import read_body
from nextword.training.changes import other_writer
from nextword.training.live import ask, read_wishes
from nextword.watch.asking import Weights
from nextword.watch.series import Series

POINTS = 1200
"""Of a curve: about as many as a wide screen has columns."""
FRAMED_BY = "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
"""A notebook of this machine may show it in a frame; a page from elsewhere could catch clicks."""
LOOK_SECONDS = 1.0
"""Between two looks at a journal."""
BEAT_SECONDS = 10.0
"""Between two signs that the server is still there."""
SIGNALS = {"save": "SIGUSR1", "stop": "SIGTERM"}
SLOWER, LOWEST = "halve the rate", 1 / 1024
PAUSES = {"pause": True, "go on": False}
_LOG = logging.getLogger("nextword.watch")


class Question(Struct, kw_only=True):
    """A line that was typed in."""

    text: Annotated[str, Meta(max_length=4000)]
    top: Annotated[int, Meta(ge=1, le=50)] = 12
    taught: Annotated[str, Meta(max_length=4000)] = ""
    times: Annotated[int, Meta(ge=0, le=20)] = 0


class Order(Struct, kw_only=True):
    """What a run is told to do."""

    what: str


class Watched:
    """The runs of one folder, each read when somebody looks at it."""

    def __init__(self, runs: Path, shown: str, series: Series | None = None) -> None:
        """Read nothing yet.

        Args:
            runs: the folder of runs.
            shown: name of the run that the page begins with.
            series: its journal, if somebody reads that already.
        """
        self.folder, self.shown = runs, shown
        self.token = secrets.token_urlsafe(24)
        self._series = {} if series is None else {shown: series}
        self._weights: dict[str, Weights] = {}

    def run(self, name: str) -> Path:
        """Return a run's folder.

        Raises:
            ApiError: there is no such run.
        """
        found = {run.name: run for run in list_runs(self.folder)}
        if name not in found:
            raise ApiError(f"no run {name!r}", status=404, param="run", code="run_not_found")
        return found[name]

    async def series(self, name: str) -> Series:
        """Return a run's journal, with what was added since; a long one is read in a thread."""
        series = self._series.setdefault(name, Series(self.run(name)))
        await asyncio.to_thread(series.update)
        return series

    def weights(self, name: str) -> Weights:
        """Return what can be asked of a run."""
        return self._weights.setdefault(name, Weights(self.run(name)))


def build(watched: Watched, settings: ServeSettings) -> Starlette:
    """Build the application."""
    doors: dict[str, tuple[str, Door[Watched]]] = {
        "/": ("GET", _page),
        "/api/runs": ("GET", _runs),
        "/api/run/{name}": ("GET", _run),
        "/api/curve/{name}": ("GET", _curve),
        "/api/moments/{name}": ("GET", _moments),
        "/api/changes/{name}": ("GET", _changes),
        "/api/batch/{name}": ("GET", _batch),
        "/api/ask/{name}": ("POST", _ask),
        "/api/layers/{name}": ("POST", _layers),
        "/api/attention/{name}": ("POST", _attention),
        "/api/teach/{name}": ("POST", _teach),
        "/api/tell/{name}": ("POST", _tell),
    }
    return application(watched, doors, settings)


async def _page(watched: Watched, request: Request) -> Response:
    return HTMLResponse(
        page(watched.shown, token=watched.token),
        headers={"Content-Security-Policy": _policy(f"connect-src 'self'; {FRAMED_BY}")},
    )


def page(shown: str, *, token: str = "", data: Any = None) -> str:
    """Return the page, live or with a run's data in it, to be kept as one file."""
    known = {"run": shown, "token": token, "data": data, "hottest": HOTTEST_NATS}
    known["schemes"] = [LIGHT._asdict(), DARK._asdict()]
    told = json.dumps(known, ensure_ascii=False).replace("<", "\\u003c")
    here, report = resources.files(__package__), resources.files("nextword.rendering")
    style = "".join(
        place.joinpath(name).read_text(encoding="utf-8")
        for place, name in ((report, "page.css"), (report, "attention.css"), (here, "page.css"))
    )
    html = here.joinpath("page.html").read_text(encoding="utf-8")
    html = html.replace("<!--ATTENTION-->", attention_parts(3).replace("<div", "<div hidden", 1), 1)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">' if data else ""
    script = "".join(
        place.joinpath(name).read_text(encoding="utf-8")
        for place, name in ((report, "attention.js"), (here, "page.js"))
    )
    for name, value in (("POLICY", policy), ("STYLE", style), ("DATA", told), ("SCRIPT", script)):
        html = html.replace(f"<!--{name}-->", value, 1)
    return html


def _policy(more: str = "") -> str:
    parts = ["default-src 'none'", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'"]
    return "; ".join([*parts, "img-src data:", *([more] if more else [])])


async def _runs(watched: Watched, request: Request) -> Response:
    return answer_json({"runs": [run.name for run in list_runs(watched.folder)][::-1]})


async def _run(watched: Watched, request: Request) -> Response:
    name = request.path_params["name"]
    return answer_json(
        await asyncio.to_thread(describe, watched.run(name), await watched.series(name))
    )


def describe(run: Path, series: Series) -> dict[str, Any]:
    """Tell of a run what does not grow with its steps."""
    facts = run_facts(run)
    plan, corpus = facts.get("plan") or {}, facts.get("corpus") or {}
    evaluations = [_evaluation(event) for event in series.of_kind("evaluation")]
    ruler, floor = (series.of_kind(kind)[-1:] for kind in ("ruler", "floor"))
    return {
        "name": run.name,
        "objective": facts.get("objective"),
        "cannot_ask": _cannot_ask(facts),
        "corpus": corpus.get("corpus"),
        "entries": corpus.get("entries"),
        "parameters": facts.get("parameters"),
        "flops_per_token": facts.get("flops_per_token"),
        "plan": {key: plan.get(key) for key in ("steps", "rows", "context")},
        "writer": other_writer(facts),
        "hardware": (facts.get("hardware") or {}).get("name"),
        "running": holder_of(run),
        "paused": read_wishes(run).paused,
        "scale": _scale(run, series),
        "ended": bool(series.of_kind("end")),
        "damaged": series.damaged,
        "latest": series.latest(),
        "evaluations": evaluations,
        "spikes": [event["step"] for event in series.of_kind("spike")],
        "rollbacks": [event["step"] for event in series.of_kind("rollback")],
        "floor": floor[0].get("nats_per_token") if floor else None,
        "ruler": _marks(ruler[0]) if ruler else [],
        "worked_odds": worked_odds(str(corpus.get("corpus"))),
        "settings": _settings(run),
        "pins": [vars(pin) for pin in _pins(run)],
        "moments": len(series.moments),
    }


def _cannot_ask(facts: dict[str, Any]) -> str | None:
    """Say why a run's weights cannot be asked what comes next, if so."""
    try:
        return find_objective(str(facts.get("objective") or "causal")).cannot.get("predict")
    except NextwordError as error:
        return str(error)


def _evaluation(event: dict[str, Any]) -> dict[str, Any]:
    names = ("step", "nats_per_token", "partial_nats_per_token", "bits_per_byte", "sample")
    return {name: event.get(name) for name in names}


def _marks(ruler: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ruler's lines in nats a token, in which the curve is."""
    tokens = ruler.get("tokens") or 0
    marks = ruler.get("marks")
    if not tokens or not isinstance(marks, list):
        return []
    nats = 0.6931471805599453 / tokens
    return [
        {"name": str(mark.get("name")), "nats": mark["bits"] * nats}
        for mark in marks
        if isinstance(mark, dict) and isinstance(mark.get("bits"), int | float)
        and mark.get("kind") in ("guess", "count", "pack")
    ]  # fmt: skip


def _settings(run: Path) -> list[str]:
    with contextlib.suppress(OSError, UnicodeError):
        return (run / "settings.toml").read_text(encoding="utf-8").splitlines()
    return []


def _pins(run: Path) -> list[Pin]:
    from nextword.base.records import read_record

    try:
        return read_record(run / PINS, list[Pin], RunError)
    except RunError:
        return []


async def _curve(watched: Watched, request: Request) -> Response:
    asked = request.query_params
    try:
        points = min(max(int(asked.get("points", POINTS)), 10), 5000)
        first, last = int(asked.get("first", 0)), int(asked.get("last", 1 << 60))
    except ValueError:
        raise ApiError("points, first and last are whole numbers") from None
    series = await watched.series(request.path_params["name"])
    return answer_json(await asyncio.to_thread(series.thinned, points, first, last))


async def _moments(watched: Watched, request: Request) -> Response:
    """Give the pinned sentences as they were judged, from a moment on."""
    try:
        since = max(int(request.query_params.get("since", 0)), 0)
    except ValueError:
        raise ApiError("since is a whole number") from None
    return answer_json((await watched.series(request.path_params["name"])).moments[since:])


async def _changes(watched: Watched, request: Request) -> Response:
    """Tell, as server-sent events, whenever a journal has grown."""
    name = request.path_params["name"]
    watched.run(name)

    async def told() -> AsyncIterator[bytes]:
        last, silent = None, 0.0
        while not await request.is_disconnected():
            series = await watched.series(name)
            now = (len(series.steps), len(series.events), len(series.moments), series.damaged)
            if now != last:
                last, silent = now, 0.0
                known = {**series.latest(), "events": now[1], "moments": now[2]}
                yield b"data: " + msgspec.json.encode(known) + b"\n\n"
            elif silent > BEAT_SECONDS:
                silent = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(LOOK_SECONDS)
            silent += LOOK_SECONDS

    headers = {"Cache-Control": "no-cache"}
    return StreamingResponse(told(), media_type="text/event-stream", headers=headers)


async def _batch(watched: Watched, request: Request) -> Response:
    """Give what a step read."""
    try:
        step = int(request.query_params.get("step", ""))
    except ValueError:
        raise ApiError("step is a whole number", param="step") from None
    name = request.path_params["name"]
    if step > ((await watched.series(name)).latest().get("step") or 0):
        raise ApiError(f"step {step} was not reached yet", param="step")
    return answer_json(await asyncio.to_thread(watched.weights(name).batch, step))


async def _ask(watched: Watched, request: Request) -> Response:
    asked = read_body(await request.body(), Question)
    weights = watched.weights(request.path_params["name"])
    told = await asyncio.to_thread(weights.ask, asked.text, asked.top, asked.taught, asked.times)
    return answer_json(told)


async def _layers(watched: Watched, request: Request) -> Response:
    """Give what each layer says next, step by step."""
    asked = read_body(await request.body(), Question)
    weights = watched.weights(request.path_params["name"])
    return answer_json(await asyncio.to_thread(weights.by_step, asked.text))


async def _attention(watched: Watched, request: Request) -> Response:
    """Give where each head looks."""
    asked = read_body(await request.body(), Question)
    weights = watched.weights(request.path_params["name"])
    told = await asyncio.to_thread(weights.attention, asked.text, asked.taught, asked.times)
    return answer_json(told)


async def _teach(watched: Watched, request: Request) -> Response:
    asked = read_body(await request.body(), Question)
    weights = watched.weights(request.path_params["name"])
    return answer_json(await asyncio.to_thread(weights.teach, asked.text, max(asked.times, 1)))


async def _tell(watched: Watched, request: Request) -> Response:
    """Let a run that trains on this machine save, or save and stop."""
    given = request.headers.get("x-nextword-token", "")
    if not hmac.compare_digest(given.encode(), watched.token.encode()):
        raise ApiError("only the page itself may do this", status=403, code="token")
    order = read_body(await request.body(), Order)
    run = watched.run(request.path_params["name"])
    known = (*SIGNALS, *PAUSES, SLOWER)
    if order.what not in known:
        raise ApiError(f"what: one of {', '.join(known)}", param="what")
    holder = holder_of(run)
    if holder is None:
        raise ApiError(f"{run.name}: nobody trains this run now")
    process = holder.get("process")
    if holder.get("host") != socket.gethostname() or not isinstance(process, int) or process < 2:
        raise ApiError(f"{run.name}: trains on {holder.get('host')}; tell it there")
    if order.what in PAUSES:
        ask(run, paused=PAUSES[order.what])
        return answer_json({"told": order.what})
    if order.what == SLOWER:
        lower = max(_scale(run, await watched.series(run.name)) / 2, LOWEST)
        ask(run, scale=lower)
        return answer_json({"told": order.what, "scale": lower})
    number = getattr(signal, SIGNALS[order.what], None)
    if number is None:
        raise ApiError("this system has no such signal")
    ask(run, order=order.what)
    os.kill(process, number)
    return answer_json({"told": order.what})


def _scale(run: Path, series: Series) -> float:
    """Return by what the run's rate is multiplied: as was asked last, or written into its log."""
    asked = read_wishes(run).scale
    if asked is not None:
        return asked
    noted = series.of_kind("rate")
    found = noted[-1].get("scale") if noted else 1.0
    return found if isinstance(found, float) and 0 < found <= 1 else 1.0
