"""The contamination report of a prepared text: found once, written down, dropped if asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from nextword.base.errors import CorpusError
from nextword.base.files import write_json
from nextword.base.records import Count, as_record, read_json
from nextword.vocabulary.deduplication import merge_ranges, remove_ranges
from nextword.vocabulary.leakage import Leaks, exact_repeats, find_leaks
from nextword.vocabulary.prepared import Prepared
from nextword.vocabulary.shards import TokenStream
from nextword.vocabulary.tokenizer import Vocabulary

LEAKS = "leaks.json"
_SAMPLE_TOKENS = 20_000
_EXAMPLE_TOKENS = 60
_ROUNDS = 3
"""What is left beside a dropped passage is cut anew and may be found then; after three, nothing."""


def check_leaks(prepared: Prepared, report: Callable[[str], None]) -> dict[str, Any]:
    """Look for near duplicates between the two sides, or read what was found before.

    Args:
        prepared: its folder keeps the finding, as leaks.json.
        report: told in a line or more what was found.

    Returns:
        `checked`, `share` of the hold-out's tokens, `units`, `estimated` and `examples`.
    """
    file = prepared.folder / LEAKS
    found = _read(file)
    if found is None and prepared.train.is_afar:
        report(
            "near duplicates between training and hold-out were not looked for: all of what lies "
            "at that address would be read; `nextword prepare` looks for them"
        )
        return {"checked": False, **_NOTHING}
    if found is None:
        leaks = find_leaks(
            prepared.train,
            prepared.holdout,
            _bytes_per_token(prepared.vocabulary, prepared.holdout),
        )
        found = {"checked": False} if leaks is None else _describe(prepared, leaks)
        write_json(file, found)
    report(describe_leaks(found))
    return found


def _read(file: Path) -> dict[str, Any] | None:
    """Read what was found before; nothing where there is nothing, or it is damaged."""
    try:
        found: dict[str, Any] = read_json(file, CorpusError)
        as_record(found, _Found, file, CorpusError)
    except CorpusError:
        return None
    return {**_NOTHING, **found}


_NOTHING: dict[str, Any] = {"share": 0.0, "units": 0, "estimated": False, "examples": []}


class _Example(Struct):
    similarity: float
    holdout: str
    train: str


class _Found(Struct):
    """What was found, as it is written down."""

    checked: bool
    share: float = 0.0
    units: Count = 0
    estimated: bool = False
    examples: list[_Example] = []


def describe_leaks(found: dict[str, Any]) -> str:
    """Say in plain words what was found."""
    if not found["checked"]:
        return (
            "near duplicates between training and hold-out were not looked for: pip install rensa"
        )
    if not found["units"]:
        return "nothing held out is nearly repeated in training"
    about = "about " if found["estimated"] else ""
    lines = [
        f"{about}{found['share']:.1%} of the hold-out is nearly repeated in training "
        f"({found['units']:,} texts): its loss will look better than it is; "
        "--corpus.drop_duplicates leaves those out of training"
    ]
    lines += [
        f'  {example["similarity"]:.0%} alike: "{example["holdout"]}" and "{example["train"]}"'
        for example in found["examples"]
    ]
    return "\n".join(lines)


def drop_repeats(
    folder: Path, vocabulary: Vocabulary, shards: int, report: Callable[[str], None]
) -> dict[str, int]:
    """Take out of training what repeats a held-out text nearly, or an earlier one exactly.

    Args:
        folder: of the shards; they are rewritten.
        vocabulary: of the shards.
        shards: how many there are of each side.
        report: told in a line what is done.

    Returns:
        `train_tokens` that are left and `dropped_tokens`.
    """
    files = {
        side: [folder / f"{side}-{number:05d}.ds" for number in range(shards)]
        for side in ("train", "holdout")
    }

    def stream(side: str) -> TokenStream:
        return TokenStream(files[side], len(vocabulary), vocabulary.end_id)

    before = len(stream("train"))
    for _ in range(_ROUNDS):
        ranges = _repeats(stream("train"), stream("holdout"), vocabulary, report)
        if not len(ranges):
            break
        remove_ranges(
            files["train"],
            len(vocabulary),
            ranges,
            vocabulary.count_bytes,
        )
    left = len(stream("train"))
    report(f"left out {before - left:,} tokens of training that repeat other text")
    return {"train_tokens": left, "dropped_tokens": before - left}


def _repeats(
    train: TokenStream, holdout: TokenStream, vocabulary: Vocabulary, report: Callable[[str], None]
) -> NDArray[np.int64]:
    """Return what to drop; the streams are let go, for Windows replaces no file that is mapped."""
    leaks = find_leaks(train, holdout, _bytes_per_token(vocabulary, holdout))
    if leaks is None:
        report("only exact repeats are dropped; for near ones: pip install rensa")
    nearly = np.empty((0, 2), dtype=np.int64) if leaks is None else leaks.train_ranges
    return merge_ranges(np.concatenate([nearly, exact_repeats(train)]))


def _bytes_per_token(vocabulary: Vocabulary, holdout: Any) -> float:
    ids = holdout.read(0, _SAMPLE_TOKENS)
    return vocabulary.count_bytes(ids) / max(len(ids), 1)


def _describe(prepared: Prepared, leaks: Leaks) -> dict[str, Any]:
    def words(stream: Any, place: tuple[int, int]) -> str:
        ids = stream.read(place[0], min(place[1], place[0] + _EXAMPLE_TOKENS)).tolist()
        return " ".join(prepared.vocabulary.decode(ids).split())

    return {
        "checked": True,
        "share": leaks.share,
        "units": leaks.leaked_units,
        "estimated": leaks.estimated,
        "examples": [
            {
                "holdout": words(prepared.holdout, example.holdout),
                "train": words(prepared.train, example.train),
                "similarity": example.similarity,
            }
            for example in leaks.examples
        ],
    }
