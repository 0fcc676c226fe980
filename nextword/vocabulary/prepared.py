"""Prepared data: a folder of token shards, the tokenizer, and a manifest.

manifest.json                      written last: a folder without it is not ready
tokenizer.json, …                  the vocabulary
train-00000.ds, holdout-00000.ds   shards; or the manifest says where they lie:
                                   `files` and `bounds` for shards made elsewhere,
                                   `portions` for the folders of a mixture
leaks.json                         near duplicates between the two sides
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextword.base.errors import CorpusError
from nextword.corpus.split import Side
from nextword.vocabulary.shards import JoinedStream, TokenStream
from nextword.vocabulary.tokenizer import Vocabulary

MANIFEST, PROGRESS = "manifest.json", "progress.json"
HOLDOUT_BYTES = "holdout.bytes"
"""Raw bytes of each held-out document of shards made elsewhere."""
SIDES: tuple[Side, ...] = ("train", "holdout")


@dataclass(frozen=True)
class Portion:
    """One of the texts that a run learns from, and its weight among them."""

    name: str
    weight: float
    train: TokenStream


@dataclass(frozen=True)
class Prepared:
    """A corpus ready to train on."""

    folder: Path
    vocabulary: Vocabulary
    train: TokenStream
    """All training tokens, one portion after the other."""
    holdout: TokenStream
    facts: dict[str, Any]
    """Documents, bytes, duplicates and tokens, as a run writes them down."""
    was_cached: bool
    portions: tuple[Portion, ...]
    """One, or those of a mixture."""

    @property
    def bits_withheld(self) -> str:
        """Why bits per byte would not be true here; empty where they are."""
        return str(self.facts.get("bits_withheld", ""))


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds prepared text."""
    return (folder / MANIFEST).is_file()


def open_prepared(folder: Path, *, was_cached: bool = True) -> Prepared:
    """Open a prepared folder.

    Raises:
        CorpusError: it is not there, or not whole.
    """
    if not is_prepared(folder):
        raise CorpusError(f"{folder}: no prepared text here; run train on the text again")
    facts = read_manifest(folder)
    vocabulary = Vocabulary.load(folder)
    entries = facts.get("portions") or [{"name": facts["corpus"], "weight": 1.0, "folder": ""}]
    opened = [(entry, _open_sides(folder / entry["folder"], vocabulary)) for entry in entries]
    portions = tuple(
        Portion(entry["name"], entry["weight"], sides["train"]) for entry, sides in opened
    )
    train, holdout = (_join([sides[side] for _, sides in opened]) for side in SIDES)
    prepared = Prepared(folder, vocabulary, train, holdout, facts, was_cached, portions)
    _check(folder, facts, prepared)
    return prepared


def _open_sides(folder: Path, vocabulary: Vocabulary) -> dict[Side, TokenStream]:
    facts = read_manifest(folder)
    bounds = facts.get("bounds", {})
    sides = {
        side: TokenStream(
            _files(folder, facts, side),
            len(vocabulary),
            vocabulary.end_id,
            tuple(bounds[side]) if bounds else None,
        )
        for side in SIDES
    }
    if (folder / HOLDOUT_BYTES).is_file():
        sizes = np.fromfile(folder / HOLDOUT_BYTES, dtype="<u8").astype(np.int64)
        sides["holdout"].document_bytes = sizes
    return sides


def _join(streams: list[TokenStream]) -> TokenStream:
    return streams[0] if len(streams) == 1 else JoinedStream(streams)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what is known about a prepared folder.

    Raises:
        CorpusError: the manifest is missing or damaged.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"{folder / MANIFEST}: cannot be read ({error}); remove the folder and prepare the "
            "text again"
        ) from None
    missing = [name for name in _NEEDED if not isinstance(facts, dict) or name not in facts]
    if missing:
        raise CorpusError(
            f"{folder / MANIFEST}: damaged, {missing[0]!r} is missing; remove the folder and "
            "prepare the text again"
        )
    return facts


_NEEDED = ("corpus", "entries", "train_tokens", "holdout_tokens")
_SAMPLE_TOKENS = 1 << 16


def _check(folder: Path, facts: dict[str, Any], prepared: Prepared) -> None:
    """Refuse shards that are not what the manifest says."""
    vocabulary = prepared.vocabulary
    if len(vocabulary) != facts["entries"]:
        raise CorpusError(
            f"{folder}: its vocabulary has {len(vocabulary):,} entries and its shards were written "
            f"with {facts['entries']:,}; remove the folder and prepare the text again"
        )
    for side, stream in (("train", prepared.train), ("holdout", prepared.holdout)):
        told = facts[f"{side}_tokens"]
        if len(stream) != told:
            raise CorpusError(
                f"{folder}: {len(stream):,} tokens of the {side} side where {MANIFEST} says "
                f"{told:,}; remove the folder and prepare the text again"
            )
        for start in (0, max(told - _SAMPLE_TOKENS, 0)):
            stream.read(start, start + _SAMPLE_TOKENS)  # refuses ids that the vocabulary lacks


def _files(folder: Path, facts: dict[str, Any], side: Side) -> list[Path]:
    if "files" in facts:
        return [Path(file) for file in facts["files"]]
    return [folder / f"{side}-{number:05d}.ds" for number in range(facts["shards"])]
