"""One good file of every kind that this program reads, for what damages them."""

import bz2
import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

from tests.children import child, run_verb
from tests.documents import make_documents

MODEL = "folder"


def make_good(place: Path) -> None:
    """Write one good file of every kind."""
    import torch
    import zstandard

    torch.set_num_threads(1)
    (place / "text.txt").write_text(_TEXT)
    (place / "line.txt").write_text(_TEXT[:200])
    packs = (("gz", gzip), ("bz2", bz2), ("xz", lzma), ("zst", zstandard))
    for ending, package in packs:
        (place / f"text.txt.{ending}").write_bytes(package.compress(_TEXT.encode()))
    rows = [{"text": line, "label": str(len(line) % 2)} for line in _TEXT.splitlines()]
    said = [{"prompt": f"B{number}?", "answer": "we"} for number in range(40)]
    for name, written in (("rows", rows), ("labels", rows), ("chat", said)):
        lines = "".join(json.dumps(row) + "\n" for row in written)
        (place / f"{name}.jsonl").write_text(lines)
    (place / "rows.csv").write_text("text,label\n" + "".join(f'"{r["text"]}",x\n' for r in rows))
    _make_tables(place, rows)
    make_documents(place)
    short = ("--corpus.stories", "40", "--training.steps")
    _must("train", "--name", "it", *_TINY, *short, "6")
    _must("train", "--name", "hidden", *_TINY, *short, "3", "--objective.name", "masked")
    _must("finetune", "it", "labels.jsonl", "--name", "named", "--finetune.steps", "2", "--quiet")
    for run, name in (("it", MODEL), ("hidden", "masked"), ("named", "labelled")):
        (checkpoint, *_) = sorted((place / "runs" / run / "checkpoints").glob("step-*"))[::-1]
        shutil.copytree(checkpoint, place / name)
        shutil.rmtree(place / name / "training")
        if run != "it":
            shutil.rmtree(place / "runs" / run)
    _must("prepare", "text.txt", "-o", "prepared", "--vocabulary.kind", "byte")
    _must("prepare", "rows.jsonl", "-o", "several", "--vocabulary.kind", "byte", shard_bytes=3000)
    assert len(list((place / "several").glob("train-*.ds"))) > 1
    _must("compress", MODEL, "line.txt", "-o", "text.nw")
    shutil.copytree(place / MODEL, place / "sharded")
    os.rename(place / "sharded/model.safetensors", place / "sharded/model-1.safetensors")
    from safetensors import safe_open

    with safe_open(place / "sharded/model-1.safetensors", "pt") as opened:
        index = {"weight_map": dict.fromkeys(opened.keys(), "model-1.safetensors")}
    (place / "sharded/model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(place / "runs/it/settings.toml", place / "recipe.toml")


def _make_tables(place: Path, rows: list[dict]) -> None:
    import pyarrow
    from datasets import Dataset, disable_progress_bars
    from pyarrow import parquet

    disable_progress_bars()
    parquet.write_table(pyarrow.Table.from_pylist(rows), place / "rows.parquet", row_group_size=50)
    Dataset.from_list(rows).save_to_disk(str(place / "saved"))


def _must(*arguments: str, shard_bytes: int | None = None) -> None:
    """Run a verb that makes good files, with small shards if asked for."""

    def work() -> int:
        if shard_bytes is not None:
            from nextword.vocabulary import encode

            encode.SHARD_BYTES, encode.BATCH_PIECES = shard_bytes, 8
        return run_verb(arguments)

    status, words = child(work, limited=False)
    if status:
        raise SystemExit(f"{arguments}: {status}: {words}")


_TINY = (
    "--model.depth", "1", "--model.hidden-size", "16", "--model.head-dim", "8",
    "--model.context", "16",
    "--model.num-attention-heads", "2", "--vocabulary.kind", "byte", "--training.batch-tokens",
    "64", "--training.checkpoint-every", "3", "--machine.threads", "1", "--machine.device", "cpu",
    "--quiet",
)  # fmt: skip
_TEXT = "".join(
    f"We are all humans, born to make {word} of our own, said number {number}.\n"
    for number in range(40)
    for word in ("mistakes", "music", "room")
)
