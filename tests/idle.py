"""How long processes wait for each other where a model is looked at, beside what a step takes.

    python -m tests.idle [--keep FILE]

Two processes on one machine, of one thread each. A process waits in what all do together, and, when
it has done its part of an evaluation or a replay, until the last of them is ready for the next
step. A text of half a million words of a made-up language with Zipf's odds, whose run counts before
its first evaluation for longest.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nextword.machine.about import versions
from nextword.machine.device import processor_name
from tests.place import Place
from tests.several import all_well, together

RUNS = {
    "stories": ["--training.steps=120", "--training.evaluate-every=40"],
    "own text": ["own.txt", "--training.steps=120", "--training.evaluate-every=40"],
    "own text, 25 million parameters": [
        "own.txt", "--model.depth=8", "--model.hidden-size=512", "--training.steps=8",
        "--training.evaluate-every=4", "--training.batch-tokens=8192", "--model.context=256",
        "--training.evaluate-tokens=8192",
    ],
}  # fmt: skip
WAYS = ("ddp", "fsdp")


def watch_waits(file: str) -> None:
    """Write down when each process begins and ends looking at the model, and how long it waits."""
    from nextword import fit, language_modeling
    from nextword.machine.ranks import Ranks
    from nextword.training.loop import Callback, TrainerState

    waited = [0.0]

    def timed(name: str) -> None:
        does = getattr(Ranks, name)

        def wait(ranks: Ranks, *given: Any) -> Any:
            began = time.monotonic()
            found = does(ranks, *given)
            waited[0] += time.monotonic() - began
            return found

        setattr(Ranks, name, wait)

    def looked(kind: str, step: int, look: Callable[[], Any]) -> Any:
        waited[0], began = 0.0, time.monotonic()
        found = look()
        words = {"kind": kind, "step": step, "rank": int(os.environ["RANK"]), "began": began}
        words |= {"ended": time.monotonic(), "waited": waited[0]}
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(words) + "\n")
        return found

    for name in ("sum", "most", "wait"):
        timed(name)
    evaluation, judge_pins = fit.evaluation, language_modeling.judge_pins
    replays = [0]

    def evaluated(*given: Any) -> Callback:
        made = evaluation(*given)

        def act(state: TrainerState) -> None:
            looked("evaluation", state.step, lambda: made.action(state))

        return Callback(made.steps, act)

    def judged(*given: Any) -> Any:
        replays[0] += 1
        return looked("replay", replays[0], lambda: judge_pins(*given))

    fit.evaluation, language_modeling.judge_pins = evaluated, judged


def made_up(words: int) -> str:
    """Return a text of made-up words, in sentences of ten."""
    source = np.random.default_rng(0)
    known = [
        "".join(source.choice(list("aeioulnrst"), size)) for size in source.integers(2, 9, 9000)
    ]
    drawn = np.minimum(source.zipf(1.3, words) - 1, len(known) - 1)
    lines = (" ".join(known[n] for n in some) for some in np.array_split(drawn, words // 10))
    return ".\n".join(lines)


def waits(place: Place, name: str, file: Path) -> dict[str, Any]:
    """Return the seconds that processes waited at most, by kind, and those of a step."""
    lines = (place.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    ends = [event["seconds"] for event in map(json.loads, lines) if event["event"] == "step"]
    told = [json.loads(line) for line in file.read_text().splitlines()]
    found: dict[str, Any] = {"step": median(np.diff(ends).tolist())}
    for kind in ("evaluation", "replay"):
        here = [one for one in told if one["kind"] == kind]
        each = []
        for step in sorted({one["step"] for one in here}):
            of = [one for one in here if one["step"] == step]
            first = min(one["began"] for one in of)
            ready = max(one["ended"] for one in of)
            idle = [one["waited"] + ready - one["ended"] for one in of]
            if len(of) == 1:  # the other waits for all of it
                idle.append(ready - first)
            each.append(round(max(idle), 4))
        found[kind] = each
    return {"step": round(found.pop("step"), 4), **found}


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="write the figures here")
    asked = parser.parse_args()
    load, found = os.getloadavg(), []
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        (place.folder / "own.txt").write_text(made_up(500_000))
        for kind, words in RUNS.items():
            for way in WAYS:
                name, file = f"{len(found)}", place.folder / f"{len(found)}.jsonl"
                given = ["train", "--name", name, *words, f"--machine.parallel={way}"]
                all_well(together(place, 2, given, IDLE=str(file)))
                row = {"run": kind, "parallel": way, **waits(place, name, file)}
                found.append(row)
                print(row, flush=True)
    if asked.keep:
        whole = {
            "date": time.strftime("%Y-%m-%d"), "load_before": load, "processor": processor_name(),
            "versions": versions(), "seconds_waited_at_most": found,
        }  # fmt: skip
        asked.keep.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
