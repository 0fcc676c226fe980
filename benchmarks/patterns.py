"""Which split pattern costs least? Bits per byte of held-out text after the default training.

    python benchmarks/patterns.py [FILE ...] [--jobs N] [--device cuda]

For each pattern, three seeds, on the built-in stories, the built-in prose, the sources of Python's
own library (its first 2 MB), and files named. Nothing is chosen for a pattern: the vocabulary's
size, the network and the steps are the defaults. Results: results/patterns.json.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from nextword.vocabulary.patterns import PATTERNS

SOURCE_BYTES = 2_000_000
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "patterns.json"


def python_source(folder):
    """Put the library's first modules into a folder as texts; return it."""
    size, here = 0, folder / "python-source"
    here.mkdir()
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")
        size += len(text.encode())
        if size > SOURCE_BYTES:
            break
        (here / f"{file.stem}.txt").write_text(text, encoding="utf-8")
    return str(here)


def train(folder, text, pattern, seed, given):
    """Train once; return the hold-out's figures."""
    number = f"{Path(text).stem}-{pattern}-{seed}"
    options = ["--vocabulary.pattern", pattern, "--training.seed", str(seed), "--name", number]
    options += ["--machine.device", given.device, "--machine.threads", str(given.threads)]
    done = subprocess.run(
        [sys.executable, "-m", "nextword", "train", text, *options, "--json", "--quiet"],
        cwd=folder,
        env={**os.environ, "NEXTWORD_CACHE": str(folder / number), "GOMP_SPINCOUNT": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    return {
        "bits_per_byte": found["bits_per_byte"],
        "bytes_per_token": found["bytes"] / found["tokens"],
        "seconds": round(found["seconds"], 1),
    }


def main():
    """Measure; write results/patterns.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [str(Path(file).absolute()) for file in given.files]
        texts = ["stories", "python", python_source(folder), *files]
        wanted = list(itertools.product(texts, PATTERNS, SEEDS))
        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            found = list(pool.map(lambda one: train(folder, *one, given), wanted))
    rows = []
    for text, pattern in itertools.product(texts, PATTERNS):
        mine = [row for (*key, _), row in zip(wanted, found, strict=True) if key == [text, pattern]]
        bits = [row["bits_per_byte"] for row in mine]
        rows.append(
            {
                "text": Path(text).stem,
                "pattern": pattern,
                "bits_per_byte": round(statistics.mean(bits), 4),
                "least": round(min(bits), 4),
                "most": round(max(bits), 4),
                "bytes_per_token": round(mine[0]["bytes_per_token"], 3),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    result = {"date": time.strftime("%Y-%m-%d"), "python": sys.version.split()[0]}
    result |= {"device": given.device, "seeds": len(SEEDS), "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
