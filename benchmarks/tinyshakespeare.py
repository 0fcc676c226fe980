"""To nanoGPT's loss, beside nanoGPT: seconds from command to prompt, and nats/character.

    python benchmarks/tinyshakespeare.py TEXT NANOGPT [--seeds 5] [--long 2]

One after the other in turn, each in an empty place, on TEXT, which is tinyshakespeare:
`recipes/quick.toml`, and in the first rounds no option given, and nanoGPT's documented CPU recipe
(NANOGPT is its repository, to be cloned; its script asks for `requests`). Each side prepares the
text, trains, evaluates on the way, and leaves a model on the disk. The text (1,115,394 bytes, all
ASCII: a byte is a character) has its last tenth held out on both sides; all of it is scored,
whatever the vocabulary, nanoGPT's in consecutive windows of its context. Writes
results/tinyshakespeare.json.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "tinyshakespeare.json"
OURS = {"quick": ["--recipe", str(ROOT / "recipes" / "quick.toml")], "default": []}
THEIRS = [
    *("config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20"),
    *("--log_interval=1", "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4"),
    *("--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
]
SCORE = """
import time
trained = time.time()
model.eval()
text = torch.from_numpy(np.fromfile("data/shakespeare_char/val.bin", np.uint16).astype(np.int64))
size, nats, count = block_size, 0.0, 0
with torch.no_grad():
    for start in range(0, len(text) - 1, size):
        part = text[start : start + size + 1][None]
        nats += float(model(part[:, :-1], part[:, 1:])[1]) * (part.shape[1] - 1)
        count += part.shape[1] - 1
print("scored", nats / count, time.time() - trained)
"""
"""Added to the end of nanoGPT's script, for its checkpoint is a pickle, and none is read here."""


def ours(text: Path, options: list[str], seed: int) -> tuple[float, float]:
    """Return seconds and nats/character of one training here."""
    with tempfile.TemporaryDirectory() as place:
        places = {"NEXTWORD_RUNS": f"{place}/runs", "NEXTWORD_CACHE": f"{place}/cache"}
        words = ["train", str(text), *options, "--training.seed", str(seed), "--json"]
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "nextword", *words],
            env={**os.environ, **places, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - began
    return seconds, json.loads(done.stdout)["bits_per_byte"] * math.log(2)


def theirs(text: Path, repository: Path, seed: int) -> tuple[float, float]:
    """Return the same of nanoGPT."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["git", "clone", "-q", str(repository), place], check=True)
        data = Path(place) / "data" / "shakespeare_char"
        shutil.copy(text, data / "input.txt")
        script = Path(place) / "train.py"
        words = script.read_text().replace("manual_seed(1337 ", f"manual_seed({1337 + seed} ")
        script.write_text(words + SCORE)
        began = time.perf_counter()
        for command in (["data/shakespeare_char/prepare.py"], ["train.py", *THEIRS]):
            done = subprocess.run(
                [sys.executable, *command], cwd=place, capture_output=True, text=True, check=True
            )
        seconds = time.perf_counter() - began
    nats, scoring = map(float, done.stdout.splitlines()[-1].split()[1:])
    return seconds - scoring, nats


def main() -> None:
    """Measure in turn, and write medians and spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--long", type=int, default=2, help="rounds in which all three train")
    given = parser.parse_args()
    text, load = given.text.resolve(), os.getloadavg()
    rows: dict[str, list[dict[str, float]]] = {"nanogpt": [], **{name: [] for name in OURS}}
    for seed in range(given.seeds):
        for name in rows if seed < given.long else ["quick"]:
            if name == "nanogpt":
                seconds, nats = theirs(text, given.nanogpt, seed)
            else:
                seconds, nats = ours(text, OURS[name], seed)
            row = {"seconds": round(seconds, 1), "nats_per_character": round(nats, 4)}
            rows[name].append({"seed": seed, **row})
            print(name, rows[name][-1], flush=True)
    medians = {
        name: {
            key: round(statistics.median(row[key] for row in found), 4)
            for key in ("seconds", "nats_per_character")
        }
        for name, found in rows.items()
    }
    from nextword.machine.device import choose_machine
    from nextword.machine.options import MachineSettings

    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": choose_machine(MachineSettings()).describe(),
        "load_before": load,
        "medians": medians,
        "times_as_fast": {
            name: round(medians["nanogpt"]["seconds"] / medians[name]["seconds"], 1)
            for name in OURS
        },
        "runs": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
