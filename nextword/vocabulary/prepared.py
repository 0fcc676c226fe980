"""Prepared data: a folder of token shards, the tokenizer, and a manifest.

manifest.json                      written last: a folder without it is not ready
tokenizer.json, …                  the vocabulary
train-00000.ds, holdout-00000.ds   shards; or the manifest says where they lie:
                                   `files` and `bounds` for shards made elsewhere,
                                   `portions` for the folders of a mixture
leaks.json                         near duplicates between the two sides
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct, to_builtins

from nextword.base.cache import digest_of
from nextword.base.errors import CorpusError
from nextword.base.records import Count, Place, Size, as_record, read_json
from nextword.corpus.split import Side
from nextword.vocabulary.shards import JoinedStream, TokenStream
from nextword.vocabulary.tokenizer import Vocabulary

MANIFEST, PROGRESS = "manifest.json", "progress.json"
HOLDOUT_BYTES = "holdout.bytes"
"""Raw bytes of each held-out document of shards made elsewhere."""
SIDES: tuple[Side, ...] = ("train", "holdout")
MOST_SHARDS = 1 << 20


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
    bounds = facts.get("bounds")
    _check_digests(folder, facts)
    sides = {
        side: TokenStream(
            _files(folder, facts, side),
            len(vocabulary),
            vocabulary.end_id,
            tuple(bounds.get(side, (0, 0))) if bounds else None,
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
    file = folder / MANIFEST
    facts: dict[str, Any] = read_json(file, CorpusError, advice=_AGAIN)
    known = as_record(facts, CorpusFacts, file, CorpusError, advice=_AGAIN)
    return {**to_builtins(known), **facts}


_AGAIN = "remove the folder and prepare the text again"


class _PortionFacts(Struct):
    """A text of a mixture."""

    name: str
    weight: Annotated[float, Meta(ge=1e-300, le=1e12)]
    folder: Place
    train_tokens: Size


class _Noticed(Struct):
    """Something that was not read as it stands."""

    count: Count
    first: str


class CorpusFacts(Struct):
    """What a manifest must say, and a run that repeats it."""

    corpus: str
    entries: Size
    train_tokens: Count
    holdout_tokens: Count
    documents: Count
    vocabulary: str = ""
    shards: Annotated[int, Meta(ge=0, le=MOST_SHARDS)] | None = None
    bytes: Count | None = None
    duplicate_documents: Count | None = None
    unknown_tokens: Count | None = None
    entries_asked: Count | None = None
    beyond_limit: Count | None = None
    dropped_tokens: Count | None = None
    key: str | None = None
    bits_withheld: str = ""
    scripts: dict[str, float] = {}
    reading: dict[str, Count | _Noticed] | None = None
    files: list[Place] | None = None
    bounds: dict[Side, tuple[Count, Count]] | None = None
    portions: list[_PortionFacts] | None = None
    digests: dict[str, str] | None = None

    def __post_init__(self) -> None:
        """Of what was noticed the records are a number, and nothing else is."""
        numbers = [kind for kind, found in (self.reading or {}).items() if isinstance(found, int)]
        if self.reading and numbers != ["records"]:
            raise ValueError("its reading does not say how many records there were")


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
    if (files := facts.get("files")) is not None:
        return [Path(file) for file in files]
    return [folder / f"{side}-{number:05d}.ds" for number in range(facts.get("shards") or 0)]


def digests_in(folder: Path) -> dict[str, str]:
    """Return the digests of the files that say where documents end and how long they were.

    A token too many is seen by its number and by what it is; these would change figures unseen.
    """
    files = [*folder.glob("*.ds.index"), *folder.glob("*.ds.bytes"), *folder.glob(HOLDOUT_BYTES)]
    return {file.name: digest_of(file) for file in sorted(files)}


def _check_digests(folder: Path, facts: dict[str, Any]) -> None:
    for name, digest in (facts.get("digests") or {}).items():
        file = folder / Path(name).name
        if not file.is_file() or digest_of(file, digest) != digest:
            raise CorpusError(f"{file}: missing or changed since it was written; {_AGAIN}")
