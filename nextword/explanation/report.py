"""The data of a run's HTML report: loss curves, hardest tokens, samples, vocabulary facts."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextword.base.errors import EvaluationError, RunError
from nextword.explanation.attention import BESIDE_OTHERS, AttentionMaps, attend
from nextword.explanation.audit import Audit, audit_worked
from nextword.explanation.benchmarks import Benchmark, read_benchmarks
from nextword.explanation.replay import Replay, read_replay
from nextword.explanation.ruler import Ruler
from nextword.explanation.trace import Position, Trace, trace
from nextword.prediction.evaluate import Evaluation
from nextword.prediction.loading import Opened, run_facts
from nextword.training.journal import Journal
from nextword.vocabulary.prepared import Prepared
from nextword.vocabulary.shards import TokenStream
from nextword.vocabulary.tokenizer import Vocabulary

SHOWN_TEXTS, SHOWN_TOKENS = 6, 120
COARSE_PIECE = 2
"""Bytes a token above which so many tokens are text enough; of characters more are shown."""
JUDGED_TOKENS = 6_000
"""Held-out tokens among which the hardest are sought."""
HARDEST, FEWEST_MEETINGS = 12, 5
LONGEST_PIECES = 24
CURVE_POINTS = 300


@dataclass(frozen=True)
class HardPiece:
    """A piece that was met several times, and how large the mistakes were on average."""

    piece: str
    met: int
    nats: float


@dataclass(frozen=True)
class Written:
    """What the model wrote at one moment of training."""

    step: int
    text: str


@dataclass(frozen=True)
class Report:
    """One run, ready to be drawn."""

    run: str
    facts: Mapping[str, Any]
    """As the run wrote them down: text, shape, plan, versions, hardware."""
    settings: str
    """The run's recipe, as TOML."""
    curve: tuple[tuple[int, float], ...]
    """Steps and training loss in nats a token, averaged over neighbors."""
    evaluations: tuple[tuple[int, float], ...]
    """Steps and hold-out loss in nats a token."""
    samples: tuple[Written, ...]
    seconds: float
    """Of training, all its parts together where it was resumed."""
    step: int
    """Steps that the model shown had learned."""
    scores: Evaluation
    ruler: Ruler | None
    """None of a model whose loss is not that of a text."""
    replay: Replay
    texts: tuple[Trace, ...]
    """The first words of some held-out texts, judged."""
    audit: Audit
    hardest: tuple[Position, ...]
    hard_pieces: tuple[HardPiece, ...]
    judged_tokens: int
    """Among so many were the hardest sought."""
    vocabulary: Mapping[str, Any]
    benchmarks: tuple[Benchmark, ...] = ()
    """Of this checkpoint."""
    attention: AttentionMaps | None = None
    """Of the first pinned sentence; None where it has no place on a page."""


def build_report(
    opened: Opened, prepared: Prepared, scores: Evaluation, ruler: Ruler | None
) -> Report:
    """Gather a run's report.

    Args:
        opened: the run's model.
        prepared: its text.
        scores: of the model on the whole hold-out.
        ruler: measured on the same; None where there can be none.

    Raises:
        RunError: the model belongs to no run, or the run's sentences were not judged.
    """
    if opened.run is None:
        raise RunError(f"{opened.folder}: a model folder alone has no report; name a run")
    run = opened.run
    journal = Journal(run)
    steps, losses, seconds = journal.curve()
    judged = list(journal.read("evaluation"))
    scored = [
        (event["step"], event.get("partial_nats_per_token", event.get("nats_per_token")))
        for event in judged
    ]
    texts, replay = _judged_texts(opened, prepared), read_replay(run)
    positions = [position for text in texts for position in text.positions]
    return Report(
        run=run.name,
        facts=run_facts(run),
        settings=(run / "settings.toml").read_text(encoding="utf-8"),
        curve=smoothed(steps, losses),
        evaluations=tuple((step, nats) for step, nats in scored if nats is not None),
        samples=tuple(Written(event["step"], event.get("sample", "")) for event in judged),
        seconds=seconds,
        step=opened.step or run_facts(run)["plan"]["steps"],
        scores=scores,
        ruler=ruler,
        replay=replay,
        texts=tuple(texts[:SHOWN_TEXTS]),
        audit=_audit(opened),
        hardest=tuple(sorted(positions, key=lambda position: -position.nats)[:HARDEST]),
        hard_pieces=_hard_pieces(positions),
        judged_tokens=len(positions),
        vocabulary=vocabulary_facts(prepared.vocabulary, prepared.facts),
        benchmarks=tuple(one for one in read_benchmarks(run) if one.step == opened.step),
        attention=_attention(opened, replay),
    )


def _attention(opened: Opened, replay: Replay) -> AttentionMaps | None:
    """Look where each head looks in the first pinned sentence; a very long one is left out."""
    try:
        return attend(opened, replay.pins[0].text, BESIDE_OTHERS) if replay.pins else None
    except EvaluationError:
        return None


def _audit(opened: Opened) -> Audit:
    """Take the worked example apart, at "make" where the vocabulary holds the word whole."""
    name = Path(opened.run or opened.folder).name
    return audit_worked(opened.model, opened.vocabulary, name)


def _judged_texts(opened: Opened, prepared: Prepared) -> list[Trace]:
    """Judge held-out texts far apart, until enough tokens were judged."""
    holdout, vocabulary = prepared.holdout, prepared.vocabulary
    coarse = len(holdout) * COARSE_PIECE < (prepared.facts.get("bytes") or 0) * _share(prepared)
    length = SHOWN_TOKENS if coarse else 3 * SHOWN_TOKENS
    found = []
    for ids in _beginnings(holdout, JUDGED_TOKENS // SHOWN_TOKENS, length):
        asked = [id_ for id_ in ids.tolist() if id_ != holdout.end_id]
        text = vocabulary.decode(asked)
        if text.strip():
            name = opened.folder.name
            found.append(trace(opened.model, opened.vocabulary, text, ids=asked, name=name))
    return found


def _share(prepared: Prepared) -> float:
    """Return the held-out share of all tokens."""
    return len(prepared.holdout) / (len(prepared.train) + len(prepared.holdout))


def _beginnings(holdout: TokenStream, wanted: int, length: int) -> Iterator[NDArray[np.int64]]:
    """Yield the first tokens of texts far apart; of few texts, pieces from places far apart."""
    count = holdout.num_documents
    if count >= SHOWN_TEXTS:
        wanted = min(wanted, count)
        for number in range(wanted):
            yield holdout.document(number * count // wanted)[:length]
        return
    wanted = min(wanted, max(len(holdout) // length, 1))
    for number in range(wanted):
        start = number * len(holdout) // wanted
        yield holdout.read(start, start + length)


def _hard_pieces(positions: Sequence[Position]) -> tuple[HardPiece, ...]:
    met: dict[str, list[float]] = defaultdict(list)
    for position in positions:
        met[position.piece].append(position.nats)
    often = [
        HardPiece(piece, len(nats), sum(nats) / len(nats))
        for piece, nats in met.items()
        if len(nats) >= FEWEST_MEETINGS
    ]
    return tuple(sorted(often, key=lambda piece: -piece.nats)[:HARDEST])


def vocabulary_facts(vocabulary: Vocabulary, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is worth knowing of a vocabulary: size, kind, bytes a token, longest pieces."""
    pieces = [vocabulary.piece(id_) for id_ in range(len(vocabulary)) if _has(vocabulary, id_)]
    tokens = facts["train_tokens"] + facts["holdout_tokens"]
    return {
        "entries": len(vocabulary),
        "kind": vocabulary.kind,
        "bytes_per_token": facts["bytes"] / tokens if facts.get("bytes") else None,
        "scripts": dict(facts.get("scripts") or {}),
        "words": sum(piece.startswith(" ") and piece[1:].isalpha() for piece in pieces),
        "parts": sum(piece.isalpha() for piece in pieces),
        "longest": sorted(set(pieces), key=lambda piece: (-len(piece), piece))[:LONGEST_PIECES],
    }


def _has(vocabulary: Vocabulary, id_: int) -> bool:
    return bool(vocabulary.piece_bytes(id_))


def smoothed(steps: Sequence[int], losses: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Average neighbors so that at most some hundred points are left.

    Early steps keep their own: there the loss falls fastest.
    """
    if len(steps) <= CURVE_POINTS:
        return tuple(zip(steps, losses, strict=True))
    own = CURVE_POINTS // 4
    kept = list(zip(steps[:own], losses[:own], strict=True))
    size = -(-(len(steps) - own) // (CURVE_POINTS - own))
    for start in range(own, len(steps), size):
        part = losses[start : start + size]
        kept.append((steps[start + len(part) // 2], float(np.mean(part))))
    return tuple(kept)
