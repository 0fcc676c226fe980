"""The network with its kernels beside the plain one, and beside another commit's, on this machine.

python benchmarks/network.py [--before COMMIT] [--rounds 7]

Each way runs in a process of its own, one after the other in turn, so that what else the machine
does falls on all alike. A step is hidden states, loss, gradients of all weights. Writes
results/network.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "network.json"
SHAPES = {
    "default, 2 × 128": (2, 128, 2, 3583, 256, 8),
    "nanoGPT's on a CPU, 4 × 128": (4, 128, 4, 65, 64, 12),
    "6 × 384": (6, 384, 6, 8192, 384, 5),
}
"""Layers, width, heads, vocabulary, context, rows."""
MEASURE = """
import json, statistics, sys, time
import torch
from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.model.initialize import initialize
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.training.step import LanguageModelLoss

machine, plain = choose_machine(MachineSettings()), sys.argv[1] == "plain"
if plain:
    from nextword.kernels.choose import plain_only
    entered = plain_only()
    entered.__enter__()
found = {"precision": str(machine.precision), "steps": {}}
for name, (layers, width, heads, entries, context, rows) in json.loads(sys.argv[2]).items():
    shape = Shape(vocab_size=entries, hidden_size=width, intermediate_size=round(width / 3) * 8,
                  num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
                  head_dim=width // heads, context=context)
    model = Transformer(shape)
    initialize(model, 0)
    model.set_precision(machine.precision)
    loss = LanguageModelLoss(model, precision=machine.precision)
    ids = torch.randint(0, entries, (rows, context + 1), generator=torch.Generator().manual_seed(0))
    times = []
    until = time.perf_counter() + float(sys.argv[3])
    while time.perf_counter() < until or len(times) < 5:
        began = time.perf_counter()
        loss(ids[:, :-1], ids[:, 1:]).backward()
        times.append(time.perf_counter() - began)
        for weight in model.parameters():
            weight.grad = None
    found["steps"][name] = statistics.median(times[2:])
print(json.dumps(found))
"""


def measure(folder: Path, way: str, seconds: float) -> dict:
    """Return the median step of each shape, in seconds, computed by the code in a folder."""
    words = [sys.executable, "-c", MEASURE, way, json.dumps(SHAPES), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Measure in turn and write the medians, with their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", help="a commit whose network is measured too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each shape and round")
    given = parser.parse_args()
    from nextword.machine.device import processor_name

    with tempfile.TemporaryDirectory() as name:
        places = {"kernels": ROOT, "plain": ROOT}
        if given.before:
            archive = ["git", "archive", given.before, "nextword"]
            packed = subprocess.run(archive, cwd=ROOT, capture_output=True, check=True).stdout
            subprocess.run(["tar", "x"], cwd=name, input=packed, check=True)
            places["before"] = Path(name)
        load, rounds = os.getloadavg(), {way: [] for way in places}
        for _ in range(given.rounds):
            for way, folder in places.items():
                rounds[way].append(measure(folder, way, given.seconds))
        steps = {
            way: {
                shape: {
                    "median_ms": round(1e3 * statistics.median(times), 2),
                    "least_ms": round(1e3 * min(times), 2),
                    "most_ms": round(1e3 * max(times), 2),
                }
                for shape in SHAPES
                for times in [[one["steps"][shape] for one in found]]
            }
            for way, found in rounds.items()
        }
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "precision": rounds["kernels"][0]["precision"],
        "load_before": load,
        "rounds": given.rounds,
        "before": given.before,
        "steps": steps,
        "ratio_to_kernels": {
            way: {
                shape: round(steps[way][shape]["median_ms"] / one["median_ms"], 3)
                for shape, one in steps["kernels"].items()
            }
            for way in steps
        },
    }
    RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result["ratio_to_kernels"], indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
