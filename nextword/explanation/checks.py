"""Numbers that cannot lie: compute a run's figures again in other ways, and compare.

Each check is a function that returns two figures that must agree, or one and its bound. What is
computed with the run's own network is compared at the precision of float32, what is computed with a
small one of the same kind in float64 nearly to its last bits.
"""

import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextword.base.errors import EvaluationError
from nextword.explanation.previews import at_full_precision
from nextword.model.folder import read_model
from nextword.model.initialize import initialize
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.evaluate import evaluate
from nextword.prediction.loading import Opened, find_checkpoint, run_facts
from nextword.prediction.options import EvaluationSettings
from nextword.targets.batch import IGNORED, Batch
from nextword.training.journal import Journal
from nextword.training.step import LanguageModelLoss, accumulate
from nextword.vocabulary.leakage_report import check_leaks
from nextword.vocabulary.prepared import Prepared

SCORED_TOKENS = 4000
SINGLE, DOUBLE, MEASURED = 1e-5, 1e-9, 1e-5
"""Relative differences allowed: in float32, in float64, and to differences of two losses."""
NEAR_GUESSING = 0.02
"""Share by which the loss of first weights may differ from ln V."""
LEAKED = 0.01
"""Share of the hold-out that may be nearly repeated in training."""
CUT = 5e-4
"""The same, where a text is cut within a character."""
_CONTEXT, _ENTRIES, _ROWS, _PROCESSES, _PLACES, _NUDGE = 24, 61, 4, 2, 24, 1e-5


@dataclass(frozen=True)
class Check:
    """What a check found."""

    name: str
    passed: bool
    says: str
    """In a line: the figures that were compared."""
    checked: bool = True
    """Whether there was something to compare; where not, `says` tells why."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def checks(opened: Opened, prepared: Prepared) -> Iterator[Check]:
    """Compute a run's figures again, one after the other.

    Args:
        opened: the run's model.
        prepared: its text.

    Raises:
        EvaluationError: it does not predict the next token.
    """
    if not opened.model.shape.causal or opened.objective.supervised:
        raise EvaluationError(
            f"{opened.name}: what is checked is the loss of a model that predicts the next token"
        )
    small = small_network(opened.model.shape)
    for check in CHECKS:
        yield check(Subject(opened, prepared, small))


@dataclass(frozen=True)
class Subject:
    """What is checked."""

    opened: Opened
    prepared: Prepared
    small: Transformer
    """A network of the same kind, small enough for float64 and small steps."""

    def scores(self, batch_tokens: int, most: int | None = SCORED_TOKENS) -> Any:
        """Score the hold-out, or the beginning of it."""
        return evaluate(
            self.opened.model,
            self.prepared.holdout,
            EvaluationSettings(batch_tokens=batch_tokens),
            max_tokens=most,
            withheld=self.prepared.bits_withheld,
            count_bytes=self.opened.vocabulary.count_bytes,
        )


def small_network(shape: Shape) -> Transformer:
    """Return a network of the same kind in float64, with weights that all matter."""
    grouped = 2 if shape.num_key_value_heads < shape.num_attention_heads else 1
    small = replace(
        shape,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        context=_CONTEXT,
        vocab_size=_ENTRIES,
        num_attention_heads=4,
        num_key_value_heads=4 // grouped,
        head_dim=8,
    )
    model = Transformer(small)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=source))
            if weight.ndim == 1:
                weight.add_(1.0)
    return model.double()


def check_batch_size(subject: Subject) -> Check:
    """The loss does not depend on how many texts are scored at once."""
    alone, together = (subject.scores(size).nats_per_token for size in (1, 16_384))
    return _equal(
        "loss, whatever the batch", alone, together, SINGLE, "texts one by one", "in batches"
    )


def check_accumulation(subject: Subject) -> Check:
    """A step's gradient does not depend on the parts in which it is computed."""
    whole, parts = (gradient_of(subject.small, _rows(), part) for part in (_ROWS, 1))
    return _close("gradient, whatever the accumulation", whole, parts, "at once and row by row")


def check_packing(subject: Subject) -> Check:
    """Texts that stand in one row, or are filled up, lose what they lose alone."""
    model = subject.small
    texts = [row[:length] for row, length in zip(_rows(), (9, 5), strict=False)]
    plain = LanguageModelLoss(model, precision=torch.float64)
    alone = sum(float(plain(*_tensors([text])).detach()) for text in texts)
    padded = float(plain(*_tensors(texts)).detach())
    inputs = np.concatenate([text[:-1] for text in texts])[None]
    targets = np.concatenate([text[1:] for text in texts])[None]
    owners = np.repeat(np.arange(len(texts)), [len(text) - 1 for text in texts])[None]
    places = np.concatenate([np.arange(len(text) - 1) for text in texts])[None]
    given = (torch.from_numpy(part) for part in (inputs, targets, owners, places))
    packed = float(plain(*given).detach())
    worst = max((padded, packed), key=lambda found: abs(found - alone))
    return _equal(
        "loss, padded or packed", alone, worst, DOUBLE, "two texts alone", "in one batch and row"
    )


def check_processes(subject: Subject) -> Check:
    """A step's gradient does not depend on the number of processes."""
    alone = gradient_of(subject.small, _rows(), _ROWS)
    shared = shared_gradient(subject.opened.model.shape)
    name = "gradient, whatever the processes"
    if shared is None:
        return Check(name, False, f"{_PROCESSES} processes on this machine did not come to an end")
    return _close(name, alone, shared, f"in one and in {_PROCESSES} processes")


def check_bits(subject: Subject) -> Check:
    """Bits a byte: every probability once more, over the raw text's own bytes."""
    name = "bits a byte, counted again"
    scores = subject.scores(16_384)
    if not scores.num_bytes:
        why = scores.withheld or "the bytes are not known"
        return Check(name, True, f"not given: {why}", False)
    nats, size, is_cut = count_again(subject, scores.documents, scores.tokens)
    told = scores.as_dict()["bits_per_byte"]
    again, allowed = nats / math.log(2) / size, CUT if is_cut else SINGLE
    return _equal(name, told, again, allowed, "told", f"over {size:,} bytes of text")


def check_first_loss(subject: Subject) -> Check:
    """First weights know nothing: they lose what guessing does.

    The run's own first step is looked at, too: it was scored before anything was learned. It may
    lose less, where the run began with the odds of pairs, but never more.
    """
    shape = replace(subject.opened.model.shape, tie_word_embeddings=True)
    fresh = Transformer(shape)
    initialize(fresh, 0)
    opened = replace(subject.opened, model=fresh.to(subject.opened.model.device).eval())
    found = replace(subject, opened=opened).scores(16_384, 500).nats_per_token
    guessing, name = math.log(shape.vocab_size), "loss of first weights"
    said = f"ln {shape.vocab_size:,}"
    check = _equal(name, found, guessing, NEAR_GUESSING, "before it learns", said)
    first = _first_step(subject.opened.run)
    if first is None:
        return check
    passed = check.passed and first <= guessing * (1 + NEAR_GUESSING)
    return Check(name, passed, f"{check.says}; {first:.6f} at the run's first step")


def _first_step(run: Path | None) -> float | None:
    """Return what a run lost at its first step, in nats; None where others' weights began it."""
    if run is None or run_facts(run)["warm_start"] is not None:
        return None
    told = (event["loss"] for event in Journal(run).read("step") if event["step"] == 1)
    return next((math.inf if loss is None else loss for loss in told), None)


def check_gradients(subject: Subject) -> Check:
    """Gradients are what small steps of single weights do to the loss."""
    model, rows = subject.small, _rows()
    gradient = gradient_of(model, rows, _ROWS)
    weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    loss = LanguageModelLoss(model, precision=torch.float64)
    given = _tensors(list(rows))
    chosen = torch.randperm(len(weights), generator=torch.Generator().manual_seed(1))[:_PLACES]
    measured = []
    for place in chosen.tolist():
        ends = []
        for side in (1.0, -1.0):
            moved = weights.clone()
            moved[place] += side * _NUDGE
            torch.nn.utils.vector_to_parameters(moved, model.parameters())
            with torch.no_grad():
                ends.append(float(loss(*given)) / rows[:, 1:].size)
        measured.append((ends[0] - ends[1]) / (2 * _NUDGE))
    torch.nn.utils.vector_to_parameters(weights, model.parameters())
    steps = torch.tensor(measured, dtype=torch.float64)
    return _close(
        "gradient against small steps", gradient[chosen], steps, "of 24 weights", allowed=MEASURED
    )


def check_holdout(subject: Subject) -> Check:
    """Nothing that is held out was learned from."""
    name = "hold-out kept apart"
    found = check_leaks(subject.prepared, lambda _: None)
    if not found["checked"]:
        return Check(name, True, "near repeats were not looked for: pip install rensa", False)
    says = f"{found['share']:.2%} of it is nearly repeated in training (allowed {LEAKED:.0%})"
    return Check(name, found["share"] <= LEAKED, says)


def check_journal(subject: Subject) -> Check:
    """The loss that the log tells last is what a fresh evaluation finds."""
    name, run, step = "loss in the log", subject.opened.run, subject.opened.step
    events = [] if run is None else [*Journal(run).read("evaluation")]
    told = [event for event in events if _is_of(event, step)]
    if run is not None and not told and (last := find_checkpoint(run, "last")).step != step:
        # On the way only a part of the hold-out is scored, and the best may stand there.
        step, told = last.step, [event for event in events if _is_of(event, last.step)]
        network = read_model(last.folder).to(subject.opened.model.device).eval()
        subject = replace(subject, opened=replace(subject.opened, model=network))
    if not told:
        return Check(name, True, f"the log holds no whole evaluation of step {step}", False)
    again = subject.scores(16_384, None).nats_per_token
    nats = told[-1]["nats_per_token"]
    return _equal(name, nats, again, SINGLE, f"told at step {step}", "evaluated again")


CHECKS: tuple[Callable[[Subject], Check], ...] = (
    *(check_batch_size, check_accumulation, check_packing, check_processes, check_bits),
    *(check_first_loss, check_gradients, check_holdout, check_journal),
)


def gradient_of(model: Transformer, rows: NDArray[np.int64], at_once: int) -> Tensor:
    """Return the gradient of the mean loss of rows (B, T + 1), so many of them at once."""
    loss = LanguageModelLoss(model, precision=torch.float64)
    starts = range(0, len(rows), at_once)
    parts = [_batch(rows[start : start + at_once]) for start in starts]
    model.zero_grad(set_to_none=True)
    accumulate(loss, parts, rows[:, 1:].size, torch.device("cpu"))
    return _taken(model)


def shared_gradient(shape: Shape) -> Tensor | None:
    """Return the same gradient, computed by several processes, as training does with torchrun.

    None where they do not come to an end.
    """
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        workers = [spawn.Process(target=share, args=(n, folder, shape)) for n in range(_PROCESSES)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE)
            if worker.is_alive():
                worker.kill()
        file = Path(folder) / "gradient.npy"
        return torch.from_numpy(np.load(file)) if file.is_file() else None


PATIENCE = 120.0
"""Seconds."""


def share(rank: int, folder: str, shape: Shape) -> None:
    """Be one of these processes."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=_PROCESSES
    )
    model = small_network(shape)
    loss = torch.nn.parallel.DistributedDataParallel(
        LanguageModelLoss(model, precision=torch.float64)
    )
    rows = _rows()
    model.zero_grad(set_to_none=True)
    mine = [_batch(rows[rank::_PROCESSES])]
    accumulate(loss, mine, rows[:, 1:].size, torch.device("cpu"), _PROCESSES)
    if rank == 0:
        np.save(Path(folder) / "gradient.npy", _taken(model).numpy())
    torch.distributed.destroy_process_group()


@torch.inference_mode()
def count_again(subject: Subject, documents: int, tokens: int) -> tuple[float, int, bool]:
    """Return nats and bytes of held-out documents, token by token, in float64, from the logits.

    And whether the last document was cut.
    """
    model, vocabulary = subject.opened.model, subject.opened.vocabulary
    nats, size, left, context = 0.0, 0, tokens, model.shape.context
    for number in range(documents):
        whole = subject.prepared.holdout.document(number)
        ids = whole[:left]
        left -= len(ids)
        read = [vocabulary.begin_id, *ids.tolist()]
        for start in range(0, len(ids), context):
            window = read[start : start + context + 1]
            with at_full_precision(model):
                logits = model(torch.tensor([window[:-1]], device=model.device))[0]
            odds = torch.log_softmax(logits.double().cpu(), dim=-1)
            nats -= float(odds[torch.arange(len(window) - 1), torch.tensor(window[1:])].sum())
        text = vocabulary.decode([id_ for id_ in ids.tolist() if id_ != vocabulary.end_id])
        size += len(text.encode("utf-8"))
    return nats, size, len(ids) < len(whole)


def _is_of(event: dict[str, Any], step: int | None) -> bool:
    return event["step"] == step and event.get("whole") is True


def _rows() -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, _ENTRIES, (_ROWS, _CONTEXT + 1))


def _batch(rows: NDArray[np.int64]) -> Batch:
    return Batch(np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:]))


def _tensors(texts: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of texts, the shorter ones filled up."""
    width = max(map(len, texts)) - 1
    inputs = torch.zeros(len(texts), width, dtype=torch.long)
    targets = torch.full((len(texts), width), IGNORED)
    for row, text in enumerate(texts):
        inputs[row, : len(text) - 1] = torch.from_numpy(text[:-1])
        targets[row, : len(text) - 1] = torch.from_numpy(text[1:])
    return inputs, targets


def _taken(model: Transformer) -> Tensor:
    parts = [weight.grad for weight in model.parameters() if weight.grad is not None]
    return torch.cat([part.flatten() for part in parts]).clone()


def _equal(name: str, one: float, two: float, allowed: float, first: str, second: str) -> Check:
    apart = abs(one - two) / max(abs(one), abs(two), 1e-12)
    says = f"{one:.6f} {first}, {two:.6f} {second}: {apart:.1e} apart (allowed {allowed:.0e})"
    return Check(name, apart <= allowed, says)


def _close(name: str, one: Tensor, two: Tensor, how: str, allowed: float = DOUBLE) -> Check:
    if one.shape != two.shape:
        return Check(name, False, f"{one.numel():,} and {two.numel():,} numbers")
    apart = float((one - two).norm() / one.norm())
    says = f"{one.numel():,} numbers {how}: {apart:.1e} apart (allowed {allowed:.0e})"
    return Check(name, apart <= allowed, says)
