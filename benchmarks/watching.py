"""The live page: opening a long run, frames a second, and what watching costs a training.

    python benchmarks/watching.py [--steps 1000000] [--rounds 5]

A journal of a million steps is made; the page is opened in chromium, and frames are counted while
the pointer moves over the curve. Then a small training runs alone and watched, interleaved: whoever
watches follows the changes and asks for curve and figures at each, as the page does (a browser
beside it would cost the machine more than the page); and once more with the training's weights
handed over and asked each second. Two trainings are never equally fast here, so what watching takes
is timed too: the seconds for which training waits between its steps, the processor's seconds of the
thread that writes weights, and those of the page's server (which steps back for training).
"""

import argparse
import contextlib
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

CURVE = """() => {
  const canvas = document.getElementById("loss"), pen = canvas.getContext("2d");
  const before = pen.fillStyle;
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  const color = [1, 3, 5].map((i) => parseInt(pen.fillStyle.slice(i, i + 2), 16));
  pen.fillStyle = before;
  if (!canvas.width || !canvas.height) return false;
  const { data, width } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const columns = new Set();
  const near = (i) => color.every((part, k) => Math.abs(part - data[i + k]) < 24);
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] > 200 && near(i)) columns.add(i / 4 % width);
  return columns.size > width / 2;
}"""
"""Whether the training's curve stands on the page: its color in most of the drawing's columns."""


def train(place, name, command=(sys.executable, "-m", "nextword")):
    """Train a run in a process of its own; return the seconds by its own clock."""
    command = [*command, "train", "--name", name, "--quiet", *TRAIN]
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


def browser_here():
    """Find a browser, before minutes are spent on what it is to show."""
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SystemExit(f"no browser here: none of {', '.join(names)}")
    return found


def opening(place, name):
    """Open the page in a browser; return seconds to the first curve and the frames' gaps."""
    from playwright.sync_api import sync_playwright

    process = served(place, name)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=browser_here(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                page.goto(f"http://127.0.0.1:{PORT}")
                page.wait_for_function(CURVE)
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


def timed_main(note, arguments):
    """Train as the command does, and note what listening and handing over took."""
    from nextword.cli import main as command
    from nextword.training import live

    spent = {"between_steps": 0.0, "writing_processor": 0.0, "times_handed_over": 0}
    look, hand_over, writer = live._Listener.look, live._Listener.hand_over, live._writer

    def timed_look(listener, state):
        began = time.perf_counter()
        look(listener, state)
        spent["between_steps"] += time.perf_counter() - began

    def counted(listener, step):
        spent["times_handed_over"] += 1
        hand_over(listener, step)

    def timed_writer(*given):
        write = writer(*given)

        def timed(taken):
            began = time.thread_time()
            done = write(taken)
            spent["writing_processor"] += time.thread_time() - began
            return done

        return timed

    live._Listener.look, live._Listener.hand_over, live._writer = timed_look, counted, timed_writer
    try:
        command(arguments)
    finally:
        Path(note).write_text(json.dumps(spent))


def processor_seconds(process):
    """Return what a process has computed, by the system's clock."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def taken(place, asks):
    """Train while somebody watches; return what that took, as shares of the training's seconds."""
    note = place / "taken.json"
    with watching(place, "taken", asks) as process:
        began = processor_seconds(process)
        seconds = train(place, "taken", (sys.executable, __file__, "--as-training", str(note)))
        server = processor_seconds(process) - began
    spent = json.loads(note.read_text())
    shares = {name: round(spent[name] / seconds, 5) for name in spent if "times" not in name}
    shutil.rmtree(place / "taken")
    return {**shares, "server_processor": round(server / seconds, 4), "seconds": seconds} | {
        "times_handed_over": spent["times_handed_over"]
    }


@contextlib.contextmanager
def watching(place, name, asks):
    """Let somebody watch a run; gives the server's process.

    The server has been asked once before: it imports torch when it first computes, a few seconds of
    a processor that a training of hours does not notice, and one of half a minute does.
    """
    process = served(place, "first")
    url = f"http://127.0.0.1:{PORT}/api/ask/first"
    httpx.post(url, json={"text": "We are all"}, timeout=60).raise_for_status()
    stop = threading.Event()
    thread = threading.Thread(target=watcher, args=(place, name, stop, asks))
    thread.start()
    try:
        yield process
    finally:
        stop.set()
        thread.join()
        process.terminate()
        process.wait()


def watched(place, name, asks):
    """Train while somebody watches."""
    with watching(place, name, asks):
        return train(place, name)


def main():
    """Measure; write results/watching.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--as-training", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_training:
        timed_main(given.as_training[0], given.as_training[1:])
        return
    rows, loads = [], []
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        train(place, "first")
        shutil.copytree(place / "first", place / "long")
        long_journal(place / "long", given.steps)
        seconds, gaps = opening(place, "long")
        shutil.rmtree(place / "long")
        for number in range(given.rounds):
            loads.append(round(os.getloadavg()[0], 2))
            rows.append(
                (
                    train(place, f"alone{number}"),
                    watched(place, f"seen{number}", asks=False),
                    watched(place, f"asked{number}", asks=True),
                )
            )
        takes = [
            {"asked": asks, **taken(place, asks)}
            for _ in range(given.rounds)
            for asks in (False, True)
        ]
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
        "taken": takes,
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
