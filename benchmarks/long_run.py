"""A long run: does it take more and more? And what is a log of ten million steps read in?

    python benchmarks/long_run.py [--steps 20000] [--events 10000000] [--verbs-only]

A tiny model is trained for so many steps; resident memory, open files and the time that a line of
the log takes are noted at a tenth of them and at the end. Then a log of so many steps is written,
with an evaluation and judged sentences every ten-thousandth, and what runs do with it is timed:
find the last step, go on from a step near the end, read the judged sentences, draw the curve. Last,
the tiny run is given that log, and the verbs that read it are timed whole, torch's import included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from nextword import pretrain
from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.settings import resolve
from nextword.training import journal as journals
from nextword.training.journal import Journal

OPTIONS = {
    "corpus.stories": 40, "vocabulary.kind": "byte", "model.depth": 1, "model.hidden_size": 16,
    "model.num_attention_heads": 2, "model.head_dim": 8, "model.context": 16,
    "training.batch_tokens": 64, "training.evaluate_every": 500, "training.evaluate_tokens": 4000,
    "machine.threads": 1,
}  # fmt: skip


OPTIONS_STEPS = 500
"""Of the run whose log the verbs read."""
RESULTS = Path(__file__).parent / "results" / "long_run.json"


def resident():
    """Return this process's memory in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def train(steps):
    """Train, and note what it takes on the way."""
    noted, spent = [], [0.0, 0]
    real = journals.Journal.write

    def timed(journal, event):
        began = time.perf_counter()
        real(journal, event)
        spent[0] += time.perf_counter() - began
        spent[1] += 1
        if event["event"] == "step" and event["step"] % (steps // 10) == 0:
            files = len(list(Path("/proc/self/fd").iterdir()))
            noted.append([event["step"], resident(), files, round(1e6 * spent[0] / spent[1], 1)])
            spent[:] = [0.0, 0]

    journals.Journal.write = timed
    began = time.perf_counter()
    pretrain.train((), resolve(given={**OPTIONS, "training.steps": steps}), name="long")
    journals.Journal.write = real
    seconds = time.perf_counter() - began
    keys = ("step", "resident_megabytes", "open_files", "microseconds_a_line")
    return {
        "seconds": round(seconds),
        "noted": [dict(zip(keys, row, strict=True)) for row in noted],
    }


def write_log(file, events, pieces=(1,)):
    """Write a log of so many steps; of each judged sentence so many pieces."""
    step = (
        '{"event": "step", "step": %d, "loss": 2.5, "gradient_norm": 0.5, "rate_factor": 0.5, '
        '"tokens_per_second": 9000.0, "seconds": %d.125}\n'
    )
    pins = [
        {"nats": [1.5] * many, "likeliest": ["a"] * many, "likeliest_probability": [0.5] * many}
        for many in pieces
    ]
    judged = json.dumps({"event": "replay", "seconds": 0.1, "pins": pins})[:-1]
    with open(file, "w") as stream:
        for number in range(1, events + 1):
            stream.write(step % (number, number))
            if number % 10_000 == 0:
                stream.write(f'{judged}, "step": {number}}}\n')


def read(folder, events):
    """Write a log of so many steps, and time what is done with it."""
    write_log(folder / journals.METRICS, events)
    journal, took = Journal(folder), {}

    def clocked(name, call):
        began = time.perf_counter()
        found = call()
        took[name] = round(time.perf_counter() - began, 3)
        return found

    size = journal.file.stat().st_size
    assert clocked("find the last step", lambda: next(journal.latest("step")))["step"] == events
    assert (
        len(clocked("read what was judged", lambda: list(journal.read("replay"))))
        == events // 10_000
    )
    steps, losses, _ = clocked("draw the curve", journal.curve)
    assert len(steps) == len(losses) == events
    clocked("go on from a hundred steps before", lambda: journal.forget_after(events - 100))
    assert next(journal.latest("step"))["step"] == events - 100
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "events": events,
        "megabytes": round(size / 1e6),
        "seconds": took,
        "peak_megabytes": round(peak),
    }


def verbs(root, events):
    """Give the tiny run such a log, and time the verbs that read it."""
    run = root / "runs" / "long"
    pins = json.loads((run / "pins.json").read_text())
    write_log(run / journals.METRICS, events, [len(pin["ids"]) for pin in pins])
    steps = str(OPTIONS_STEPS + 200)
    took = {}
    for name, words in (
        ("runs", ["runs"]),
        ("replay", ["replay", "long"]),
        ("report", ["report", "long", "-o", str(root / "page.html")]),
        ("resume, and 200 steps", ["train", "--resume", "long", "--training.steps", steps]),
    ):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "nextword", *words], capture_output=True, text=True, check=False
        )
        took[name] = round(time.perf_counter() - began, 1)
        assert done.returncode == 0, done.stderr
    return took


def main():
    """Measure, and write results/long_run.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--verbs-only", action="store_true")
    given = parser.parse_args()
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": choose_machine(MachineSettings(device="cpu")).describe(),
        "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2),
    }
    with tempfile.TemporaryDirectory() as root:
        os.environ.update(NEXTWORD_CACHE=f"{root}/cache", NEXTWORD_RUNS=f"{root}/runs")
        if given.verbs_only:
            train(OPTIONS_STEPS)
            known = json.loads(RESULTS.read_text())
            result = {**known, "verbs": {**result, "seconds": verbs(Path(root), given.events)}}
        else:
            if RESULTS.is_file() and "verbs" in (known := json.loads(RESULTS.read_text())):
                result["verbs"] = known["verbs"]  # with the day on which they were measured
            result["training"] = train(given.steps)
            (Path(root) / "log").mkdir()
            result["log"] = read(Path(root) / "log", given.events)
    text = json.dumps(result, indent=2)
    print(text)
    RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
