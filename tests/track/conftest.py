"""What a run's journal says, for the trackers that are told of it."""

import html
import json
import math
import re
import tomllib
from pathlib import Path


def events_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def settings_of(run: Path) -> dict[str, str]:
    """All that the run was asked for, by dotted names, as words that trackers' can be held to."""
    rooms = tomllib.loads((run / "settings.toml").read_text())
    return {
        f"{room}.{name}": in_words(value)
        for room, options in rooms.items()
        for name, value in options.items()
        if not isinstance(value, list | dict)
    }


def in_words(value: object) -> str:
    """Write a setting so that what a tracker holds as a number, a word or a JSON is the same."""
    if isinstance(value, str) and value in ("True", "False"):
        return value.lower()
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return repr(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def assert_is_the_heat_map(text: str, run: Path, event: dict) -> None:
    """Find every piece of every pinned sentence with its surprise, as a page or as tables."""
    pins = json.loads((run / "pins.json").read_text())
    pieces = [piece for pin in pins for piece in pin["pieces"]]
    nats = [value for one in event["pins"] for value in one["nats"]]
    if "</span>" in text:
        found = re.findall(r'title="([^"]*)">(.*?)</span>', text, re.S)
        assert [html.unescape(piece) for _, piece in found] == pieces
        for (share, _), value in zip(found, nats, strict=True):
            probability = math.exp(-value)
            assert (
                abs(float(html.unescape(share).lstrip("<>")) - probability)
                <= 5e-5 + 0.05 * probability
            )
    else:
        rows = re.findall(r"^\| .*? \| .*? \| (\d+\.\d\d) \|", text, re.M)
        assert rows == [f"{value:.2f}" for value in nats]
    for one in event["pins"]:
        assert f"{math.fsum(one['nats']) / len(one['nats']):.4f} nats a piece" in text


def series_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What a tracker must show: each figure of the journal by step, read independently of it."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events_of(run):
        kind, step = event["event"], event["step"]
        if kind == "step":
            told = {f"train/{name}": event[name] for name in ("loss", "gradient_norm")}
        elif kind == "evaluation":
            told = {
                f"holdout/{name}": value
                for name, value in event.items()
                if type(value) in (int, float) and name != "step"
            }
        elif kind == "replay":
            losses = [math.fsum(pin["nats"]) / len(pin["nats"]) for pin in event["pins"]]
            told = {f"sentences/{number}": loss for number, loss in enumerate(losses, 1)}
        elif kind == "floor":
            told = {"floor/nats_per_token": event["nats_per_token"]}
        elif kind == "ruler":
            told = {f"ruler/{mark['name']}": mark["value"] for mark in event["marks"]}
        else:
            told = {}
        for name, value in told.items():
            found.setdefault(name, []).append((step, float(value)))
    return found
