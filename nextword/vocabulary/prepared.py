"""Text that is ready to train on: a folder of shards, a vocabulary, and what is known about them.

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

MANIFEST = "manifest.json"
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
    return Prepared(folder, vocabulary, train, holdout, facts, was_cached, portions)


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
        raise CorpusError(f"{folder / MANIFEST}: cannot be read ({error})") from None
    return facts


def _files(folder: Path, facts: dict[str, Any], side: Side) -> list[Path]:
    if "files" in facts:
        return [Path(file) for file in facts["files"]]
    return [folder / f"{side}-{number:05d}.ds" for number in range(facts["shards"])]
