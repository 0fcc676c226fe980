"""Feed damaged files to everything that reads files, each in a child under limits.

    python -m tests.fuzz --files 1000000 [--minutes 60] [--seed 0] [--only config.json]

A good file of each kind is damaged: bytes turned, cut out, doubled, the end missing; in JSON and
TOML a value replaced by one of another kind or beyond reason, a field left out. A verb of the
command line then reads it, in a forked child that may take 2 GB and so many seconds. It may do its
work or leave with one clear line (status 2); anything else is a fault: a mistake of the program's
own, a signal, too much time or memory, a file written outside its folder.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import xxhash

from nextword.base.files import DIGEST
from tests.children import OUTSIDE, child, entries, run_verb
from tests.damage import damage
from tests.documents import DOCUMENTS
from tests.good_files import MODEL, make_good


class Kind(NamedTuple):
    """One kind of file, and the verbs that read it."""

    file: str
    """Below the place in which all good files lie."""
    verbs: tuple[tuple[str, ...], ...]
    structured: bool = False
    """Whether it is JSON (or lines of it), whose values are replaced too."""


CHECKPOINT = "runs/it/checkpoints/step-000006"
ASK = (
    ("predict", MODEL, "We are all humans"),
    ("generate", MODEL, "We are", "--max-tokens", "3", "--seed", "0"),
    ("explain", MODEL, "We are"),
)
TEXT = (("evaluate", MODEL, "line.txt"),)
RESUME = (("train", "--resume", "it", "--training.steps", "8", "--quiet"),)
LOOK = (("runs",), ("report", "it", "-o", "page.html", "--force"), ("evaluate", "it"))
TRAIN = ("train", "--dry-run", "--model.depth", "1", "--model.hidden-size", "32")
TEACH = ("finetune", MODEL, "labels.jsonl", "--name", "other", "--finetune.steps", "1", "--quiet")
CHAT = ("finetune", MODEL, "chat.jsonl", "--name", "other", "--finetune.steps", "1", "--quiet")
CLASSIFY = ("classify", "labelled", "We are all humans")
FILL = ("fill", "masked", "We are [MASK] humans")
BESIDE = (("compare", "sharded", MODEL, "We are all humans"),)
READ = ("prepare", "--vocabulary.kind", "byte")
TEXTS = ("text.txt.gz", "text.txt.bz2", "text.txt.xz", "text.txt.zst", "rows.csv", "rows.parquet")
SAVED = (*READ, "dataset:saved", "-o", "made")
KINDS = (
    Kind(f"{MODEL}/config.json", (*ASK, *TEXT, *BESIDE, TEACH), structured=True),
    Kind(f"{MODEL}/tokenizer.json", (*ASK, *TEXT, *BESIDE, TEACH), structured=True),
    Kind(f"{MODEL}/tokenizer_config.json", (*ASK, CHAT), structured=True),
    Kind(f"{MODEL}/model.safetensors", (*ASK, *BESIDE, TEACH)),
    Kind("sharded/model.safetensors.index.json", (("predict", "sharded", "We"),), structured=True),
    Kind("runs/it/run.json", (*LOOK, *RESUME, ("replay", "it")), structured=True),
    Kind("runs/it/metrics.jsonl", (*LOOK[:2], ("replay", "it"), *RESUME), structured=True),
    Kind("runs/it/pins.json", (*RESUME, ("replay", "it"), LOOK[1]), structured=True),
    Kind("runs/it/settings.toml", RESUME),
    Kind(f"{CHECKPOINT}/training/state.json", (*RESUME, ("runs",)), structured=True),
    Kind(f"{CHECKPOINT}/training/manifest.json", (*RESUME, ("predict", "it")), structured=True),
    Kind(f"{CHECKPOINT}/training/optimizer.safetensors", RESUME),
    Kind("prepared/manifest.json", ((*TRAIN, "prepared"),), structured=True),
    Kind("prepared/train-00000.ds", ((*TRAIN, "prepared"),)),
    Kind("prepared/holdout-00000.ds.index", ((*TRAIN, "prepared"),)),
    Kind("prepared/holdout-00000.ds.bytes", ((*TRAIN, "prepared"),)),
    Kind("several/manifest.json", ((*TRAIN, "several"),), structured=True),
    Kind("several/train-00001.ds", ((*TRAIN, "several"),)),
    Kind("several/train-00001.ds.index", ((*TRAIN, "several"),)),
    Kind("labelled/config.json", (CLASSIFY,), structured=True),
    Kind("labelled/tokenizer.json", (CLASSIFY,), structured=True),
    Kind("labelled/model.safetensors", (CLASSIFY,)),
    Kind("masked/config.json", (FILL,), structured=True),
    Kind("masked/tokenizer.json", (FILL,), structured=True),
    Kind("masked/tokenizer_config.json", (FILL,), structured=True),
    Kind("text.nw", (("decompress", MODEL, "text.nw", "-o", "back.txt", "--force"),)),
    Kind("recipe.toml", (("train", "--recipe", "recipe.toml", "--dry-run"),)),
    Kind("rows.jsonl", ((*READ, "rows.jsonl", "-o", "made"),), structured=True),
    Kind("labels.jsonl", (TEACH,), structured=True),
    Kind("chat.jsonl", (CHAT,), structured=True),
    *(Kind(file, ((*READ, file, "-o", "made"),)) for file in TEXTS),
    Kind("saved/state.json", (SAVED,), structured=True),
    Kind("saved/dataset_info.json", (SAVED,), structured=True),
    Kind("saved/data-00000-of-00001.arrow", (SAVED,)),
    *(Kind(file, (("look", file),), structured=file.endswith(".json")) for file in DOCUMENTS),
)


def damaged(kind: Kind, good: Path, dice: random.Random) -> bytes:
    """Damage a good file of a kind; half of the archives get a checksum that fits again."""
    raw = damage((good / kind.file).read_bytes(), kind.structured, dice)
    if kind.file.endswith(".nw") and len(raw) > 8 and dice.random() < 0.5:
        raw = b"nxw\x01" + zlib.crc32(raw[8:]).to_bytes(4, "little") + raw[8:]
    return raw


def with_digest(kind: Kind, raw: bytes, good: Path, dice: random.Random) -> dict[str, bytes]:
    """Return the damaged file, half of the time beside a manifest whose digest fits it again."""
    changed = {kind.file: raw}
    manifest = Path(kind.file).with_name("manifest.json")
    if kind.file.startswith(CHECKPOINT) and kind.file != str(manifest) and dice.random() < 0.5:
        digests = json.loads((good / manifest).read_text())
        name = Path(kind.file).relative_to(CHECKPOINT).as_posix()
        digests[name] = DIGEST + xxhash.xxh3_128(raw).hexdigest()
        changed[str(manifest)] = json.dumps(digests).encode()
    if kind.file.endswith((".index", ".bytes")) and dice.random() < 0.5:
        facts = json.loads((good / manifest).read_text())
        facts["digests"][Path(kind.file).name] = hashlib.sha256(raw).hexdigest()
        changed[str(manifest)] = json.dumps(facts).encode()
    return changed


class Fault(NamedTuple):
    """What should not have happened."""

    kind: str
    verb: str
    seed: int
    what: str


def attempt(
    verb: tuple[str, ...], good: Path, place: Path, changed: Mapping[str, bytes] = {}
) -> tuple[int, str]:
    """Let a verb read good files but for those that were changed; return status and words."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good, place, symlinks=True)
    for name, raw in changed.items():
        (place / name).write_bytes(raw)

    def work() -> int:
        os.chdir(place)
        homes = {
            "NEXTWORD_RUNS": "runs",
            "NEXTWORD_CACHE": "cache",
            "HF_HOME": "hub",
            "HOME": "home",
        }
        os.environ.update({name: str(place / folder) for name, folder in homes.items()})
        tempfile.tempdir = str(place)
        return run_verb(verb)

    return child(work, inside=place)


def try_one(kind: Kind, seed: int, good: Path, place: Path, root: Path) -> tuple[str, Fault | None]:
    """Damage one file, let a verb read it; return how it ended, and the fault if it was one.

    Args:
        kind: of the file.
        seed: of the damage, and of which verb.
        good: where good files lie.
        place: where the damaged one and all others are put; nothing else may be written.
        root: holds both; all of it is looked at, which also sees what no Python code wrote.
    """
    dice = random.Random(f"{kind.file} {seed}")
    raw = damaged(kind, good, dice)
    verb = dice.choice(kind.verbs)
    beside = entries(root, place)
    status, said = attempt(verb, good, place, with_digest(kind, raw, good, dice))
    words = " ".join(verb)
    if status == OUTSIDE or (now := entries(root, place)) != beside:
        what = (
            said[-1500:] if status == OUTSIDE else f"wrote {set(now.items()) ^ set(beside.items())}"
        )
        return "outside", Fault(kind.file, words, seed, what)
    if status in (0, 2):
        return "refused" if status else "taken", None
    if status in (-signal.SIGXCPU, -signal.SIGALRM) and kind.file.endswith(".toml"):
        return "long", None  # it asks for much work in earnest: a million stories, say
    return "fault", Fault(kind.file, words, seed, f"{status}: {said[-1500:]}")


def fuzz(
    files: int, seed: int = 0, minutes: float | None = None, only: str = ""
) -> tuple[dict[str, collections.Counter], list[Fault]]:
    """Try so many damaged files; return how they ended by kind, and the faults."""
    from nextword.cli import main  # imported once, before all forks
    from nextword.prediction import loading

    assert main
    assert loading
    ends: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    faults: list[Fault] = []
    began = time.monotonic()
    shared = Path("/dev/shm")
    kinds = [kind for kind in KINDS if only in kind.file]
    random.Random(seed).shuffle(kinds)
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as root:
        good, here = Path(root) / "good", Path.cwd()
        good.mkdir()
        os.chdir(good)
        os.environ.update(NEXTWORD_RUNS=str(good / "runs"), NEXTWORD_CACHE=str(good / "cache"))
        make_good(good)
        place = Path(root, "one", "in", "another", "place")
        place.parent.mkdir(parents=True)
        for verb in {verb for kind in kinds[:files] for verb in kind.verbs}:
            status, said = attempt(verb, good, place)
            if status:
                raise SystemExit(f"the good files are refused: {verb}: {status}: {said}")
        for number in range(files):
            if minutes is not None and time.monotonic() - began > 60 * minutes:
                break
            kind = kinds[number % len(kinds)]
            how, fault = try_one(kind, seed + number, good, place, Path(root))
            ends[kind.file][how] += 1
            if fault is not None:
                faults.append(fault)
        os.chdir(here)
    return ends, faults


def main() -> None:
    """Try files, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose file's name holds this")
    given = parser.parse_args()
    began = time.monotonic()
    ends, faults = fuzz(given.files, given.seed, given.minutes, given.only)
    for kind, counted in ends.items():
        print(f"{kind:<60}{', '.join(f'{how} {many}' for how, many in sorted(counted.items()))}")
    for fault in faults[:40]:
        print(f"\n== {fault.kind}, seed {fault.seed}: {fault.verb}\n{fault.what}")
    total = sum(sum(counted.values()) for counted in ends.values())
    print(f"{total} files in {time.monotonic() - began:.0f} s, {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
