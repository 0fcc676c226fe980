"""What a run's journal says, for the trackers that are told of it."""

import json
import math
from pathlib import Path


def events_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
        else:
            told = {}
        for name, value in told.items():
            found.setdefault(name, []).append((step, float(value)))
    return found
