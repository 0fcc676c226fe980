"""The live page: opening a long run, frames a second, and what watching costs a training.

    python benchmarks/watching.py [--steps 1000000] [--rounds 5]

A journal of a million steps is made; the page is opened in chromium, and frames are counted while
the pointer moves over the curve. Then a small training runs alone and watched, interleaved: whoever
watches follows the changes and asks for curve and figures at each, as the page does (a browser
beside it would cost the machine more than the page); and once more with the training's weights
handed over and asked each second.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import torch

from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings

TRAIN = ("--corpus.stories", "1500", "--training.steps", "250", "--machine.device", "cpu")
PORT = 8123
FRAMES = """async () => {
  const canvas = document.getElementById("loss"), box = canvas.getBoundingClientRect();
  const began = performance.now(), gaps = [];
  let last = began;
  while (performance.now() - began < 3000) {
    const x = box.left + (performance.now() - began) % 600 + 80;
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: box.top + 90 }));
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - last);
    last = now;
  }
  return gaps;
}"""


def train(place, name):
    """Train a run in a process of its own; return the seconds by its own clock."""
    command = [sys.executable, "-m", "nextword", "train", "--name", name, "--quiet", *TRAIN]
    environment = {**os.environ, "NEXTWORD_RUNS": str(place)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    lines = (place / name / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines if '"step",' in line]
    return steps[-1]["seconds"] - steps[9]["seconds"]


def long_journal(run, steps):
    """Write a log of so many steps after that of a run."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    known = json.loads(next(line for line in lines if '"event": "step"' in line))
    with open(run / "metrics.jsonl", "w") as stream:
        stream.writelines(line for line in lines if '"event": "step"' not in line)
        for step in range(1, steps + 1):
            loss = 3 + 5 / step**0.5 + (step * 2654435761 % 1000) / 4000
            stream.write(
                json.dumps({**known, "step": step, "loss": loss, "seconds": step / 9}) + "\n"
            )


def served(place, name):
    """Start the page's server."""
    environment = {**os.environ, "NEXTWORD_RUNS": str(place)}
    command = [sys.executable, "-m", "nextword", "watch", name, "--port", str(PORT)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    process.stderr.readline()
    return process


def opening(place, name):
    """Open the page in a browser; return seconds to the first curve and the frames' gaps."""
    from playwright.sync_api import sync_playwright

    found = next(path for one in ("chromium", "google-chrome") if (path := shutil.which(one)))
    process = served(place, name)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                page.goto(f"http://127.0.0.1:{PORT}")
                page.wait_for_function(
                    "() => document.getElementById('state').textContent.includes('step')"
                )
                seconds.append(time.perf_counter() - began)
            page.wait_for_timeout(1500)
            gaps = page.evaluate(FRAMES)
            browser.close()
    finally:
        process.terminate()
        process.wait()
    return seconds, gaps


def watcher(place, name, stop, asks):
    """Do what the page does, until it is told to stop; ask for words each second if told."""
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as client:
        asked = 0.0
        while not stop.is_set():
            try:
                client.get(f"/api/run/{name}")
                client.get(f"/api/curve/{name}?points=1200")
                if asks and time.monotonic() - asked > 1:
                    asked = time.monotonic()
                    client.post(f"/api/ask/{name}", json={"text": "We are all"})
            except httpx.HTTPError:
                pass
            stop.wait(2)


def watched(place, name, asks):
    """Train while somebody watches."""
    process = served(place, "first")
    stop = threading.Event()
    thread = threading.Thread(target=watcher, args=(place, name, stop, asks))
    thread.start()
    try:
        return train(place, name)
    finally:
        stop.set()
        thread.join()
        process.terminate()
        process.wait()


def main():
    """Measure; write results/watching.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rows, loads = [], []
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        train(place, "first")
        for number in range(given.rounds):
            loads.append(round(os.getloadavg()[0], 2))
            rows.append(
                (
                    train(place, f"alone{number}"),
                    watched(place, f"seen{number}", asks=False),
                    watched(place, f"asked{number}", asks=True),
                )
            )
        shutil.copytree(place / "first", place / "long")
        long_journal(place / "long", given.steps)
        seconds, gaps = opening(place, "long")
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": choose_machine(MachineSettings(device="cpu")).describe(),
        "torch": torch.__version__,
        "load_averages": loads,
        "journalled_steps": given.steps,
        "seconds_to_the_first_curve": [round(one, 2) for one in seconds],
        "frames_a_second": round(1000 * len(gaps) / sum(gaps), 1),
        "longest_frame_milliseconds": round(max(gaps[5:]), 1),
        "training_seconds": [[round(one, 2) for one in row] for row in rows],
        "watched_by_alone": ratio(rows, 1),
        "asked_each_second_by_alone": ratio(rows, 2),
    }
    text = json.dumps(result, indent=2)
    print(text)
    (Path(__file__).parent / "results" / "watching.json").write_text(text + "\n")


def ratio(rows, which):
    """Return median, least and most of the ratios of each round."""
    found = [row[which] / row[0] for row in rows]
    return [round(one, 3) for one in (statistics.median(found), min(found), max(found))]


if __name__ == "__main__":
    main()
