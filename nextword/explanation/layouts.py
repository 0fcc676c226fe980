"""How a network could be divided among many cards: memory, what is sent, and how fast it learns.

Memory is counted by a rehearsal, which runs the program itself without numbers; time is reckoned.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nextword.base.errors import SettingsError
from nextword.explanation.step_time import Fleet, Work, sent_bytes, step_seconds
from nextword.model.shape import Shape
from nextword.training.options import TrainingSettings
from nextword.training.plan import MICRO_BATCH_TOKENS, TOKENS_PER_PARAMETER
from nextword.training.rehearsal import Held, pretended, rehearse
from nextword.training.room import RECOMPUTE

USABLE = 0.92
"""Share of a card's memory: the rest is taken by its driver, by what connects the cards, and by
gaps between pieces."""
FEW = 4
"""Among how many a rehearsal divides weights; what each of more holds of them is reckoned."""
COPIES = 6
"""Of a matrix while it is made orthogonal, at most, in float32."""
LEAST_TOKENS = 4096
"""At once in a rehearsal: more than the loss works on at once."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way of dividing a network among cards, and what comes of it."""

    parallel: str
    recompute: str
    micro_rows: int
    parts: int
    memory: dict[str, int]
    """Bytes of a card by part: weights, gradients, optimizer, step."""
    host_bytes: int
    """Of a machine's own memory, for the copy that is saved."""
    sent_within: float
    """Bytes that a card sends in a step to others of its machine."""
    sent_between: float
    """Bytes that a card sends in a step over its network."""
    step_seconds: float
    tokens_per_second: float
    """Of all cards."""
    mfu: float
    """Of the cards' peak, the share that the network's own operations take."""
    days: float
    megawatt_hours: float
    """Of the cards alone, at their most."""
    lacks: str = ""
    """Why it cannot be; "" where it can."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of a card at most."""
        return sum(self.memory.values())

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {**asdict(self), "memory_bytes": self.memory_bytes}


class _Rehearsals:
    """What a card holds in each way, from a few rehearsals."""

    def __init__(self, shape: Shape, training: TrainingSettings, fleet: Fleet) -> None:
        self.shape, self.training, self.fleet = shape, training, fleet
        self.least = -(-LEAST_TOKENS // shape.context)
        self._known: dict[tuple[int, int, str], Held] = {}

    def held(self, parallel: str, recompute: str) -> Callable[[int], Held]:
        """Return a function: rows at once → what a card holds."""
        count = self.fleet.count
        shares = {"ddp": 1, "fsdp": count}.get(parallel, self.fleet.per_machine)
        few = min(count, 1 if parallel == "ddp" else FEW)
        one, less, more = (
            self._rehearsed(*of, recompute)
            for of in ((few, self.least), (FEW, self.least), (FEW, 2 * self.least))
        )
        floor = _of_an_owner(self.shape) if self.training.optimizer == "muon" else 0
        one = _among_more(one, few / shares, floor)
        # A row takes as much whoever holds the weights.
        slopes = [(b - a) / self.least for a, b in zip(less.peaks, more.peaks, strict=True)]

        def held(rows: int) -> Held:
            if rows < self.least:  # below what the loss works on at once it is no straight line
                return _among_more(self._rehearsed(few, rows, recompute), few / shares, floor)
            further = [round(slope * (rows - self.least)) for slope in slopes]
            peaks = [peak + row for peak, row in zip(one.peaks, further, strict=True)]
            return Held(one.weights, one.gradients, one.state, *peaks)

        return held

    def _rehearsed(self, among: int, rows: int, recompute: str) -> Held:
        """Return what a card holds where so many divide the weights; 1: where each holds all."""
        if (among, rows, recompute) not in self._known:
            way, size = ("ddp", min(self.fleet.count, 2)) if among == 1 else ("fsdp", among)
            with pretended(size, size, way) as ranks:
                of = (self.shape, self.training, ranks, rows)
                self._known[among, rows, recompute] = rehearse(*of, recompute=recompute)
        return self._known[among, rows, recompute]


def _of_an_owner(shape: Shape) -> int:
    """Return the bytes that who makes the largest matrix orthogonal needs, however many share."""
    numbers = shape.hidden_size * max(
        shape.intermediate_size, shape.num_attention_heads * shape.head_dim
    )
    return COPIES * 4 * numbers


def _among_more(held: Held, share: float, floor: int) -> Held:
    """Return what is held where weights are divided among more cards, each of which has a share.

    Args:
        held: by a card of fewer.
        share: of what is divided, in units of that card's.
        floor: bytes that an update needs beside that, whatever the share.
    """
    weights, gradients, state = (
        round(part * share) for part in (held.weights, held.gradients, held.state)
    )
    less = held.weights + held.state - weights - state
    fewer = held.gradients - gradients
    forward, early, late, update = held.peaks
    # Until half of the layers have gradients, those are not what is most. In an update matrices
    # have owners, of which each has a share, but no less than one matrix.
    beside = update - held.weights - held.gradients - held.state
    late = max(late - less - fewer, 0)
    update = weights + gradients + state + max(round(beside * share), min(beside, floor))
    return Held(weights, gradients, state, forward - less, early - less, late, update)


def plan_layouts(
    shape: Shape,
    training: TrainingSettings,
    fleet: Fleet,
    *,
    rows: int,
    tokens: float,
    ways: Sequence[tuple[str, str]] = (),
) -> list[Layout]:
    """Return every way that this program knows of, the fastest that fits first.

    Args:
        shape: of the network.
        training: says the optimizer, and the tokens at once if that was said.
        fleet: the cards.
        rows: of a step, all cards; a multiple of their number.
        tokens: to learn from.
        ways: of dividing, with what is computed a second time; default: all there are.

    Raises:
        SettingsError: the cards do not fill their machines.
    """
    if fleet.count > fleet.per_machine and fleet.count % fleet.per_machine:
        raise SettingsError(
            f"{fleet.count} cards do not fill machines of {fleet.per_machine}; say how many each "
            "has by --per-machine"
        )
    known = ["ddp"] + ["fsdp"] * (fleet.count > 1) + ["hsdp"] * (fleet.machines > 1)
    rehearsals = _Rehearsals(shape, training, fleet)
    found = [
        _best(rehearsals, way, recompute, rows=rows, tokens=tokens)
        for way, recompute in ways or itertools.product(known, RECOMPUTE)
    ]
    return sorted(found, key=lambda one: (bool(one.lacks), -one.tokens_per_second))


def _best(
    rehearsals: _Rehearsals,
    parallel: str,
    recompute: str,
    *,
    rows: int,
    tokens: float,
) -> Layout:
    """Return a way with the most rows at once that fit, or with one where none does."""
    shape, training, fleet = rehearsals.shape, rehearsals.training, rehearsals.fleet
    mine = rows // fleet.count
    most = training.micro_batch_tokens or MICRO_BATCH_TOKENS["cuda"]
    most = max(1, min(most // shape.context, mine))
    room = USABLE * fleet.card.memory * 1e9
    held = rehearsals.held(parallel, recompute)
    # Layers are compiled for parts of one size, so they share a card's rows evenly.
    even = [n for n in range(most, 0, -1) if mine % n == 0]
    micro = next((n for n in even if held(n).peak <= room), 1)
    memory = held(micro)
    lacks = ""
    if memory.peak > room:
        lacks = (
            f"needs {memory.peak / 1e9:,.0f} GB a card, {fleet.card.memory:g} GB less "
            f"{1 - USABLE:.0%} are there"
        )
    work = Work(
        rows=mine,
        micro_rows=micro,
        recompute=recompute,
        compiled=True,  # as auto does for any run that is worth a plan
        optimizer=training.optimizer,
    )
    seconds = step_seconds(shape, fleet, parallel, work)
    rate = rows * shape.context / seconds
    within, between = sent_bytes(shape, fleet, parallel, work)
    hours = tokens / rate / 3600
    return Layout(
        parallel=parallel,
        recompute=recompute,
        micro_rows=micro,
        parts=work.parts,
        memory={
            "weights": memory.weights,
            "gradients": memory.gradients,
            "optimizer": memory.state,
            "step": memory.beside,
        },
        # Where each card holds all, the first saves it.
        host_bytes=(memory.weights + memory.state)
        * (1 if parallel == "ddp" else min(fleet.per_machine, fleet.count)),
        sent_within=within,
        sent_between=between,
        step_seconds=seconds,
        tokens_per_second=rate,
        mfu=rate * shape.flops_per_token() / (fleet.count * fleet.card.tflops * 1e12),
        days=hours / 24,
        megawatt_hours=hours * fleet.count * fleet.card.watts / 1e6,
        lacks=lacks,
    )


def usual_rows(shape: Shape, batch_tokens: int, fleet: Fleet) -> int:
    """Return the rows of a step: what was asked for, shared out evenly, at least one a card."""
    rows = max(1, round(batch_tokens / shape.context))
    return max(1, rows // fleet.count) * fleet.count


def usual_tokens(shape: Shape) -> int:
    """Return the tokens from which such a network learns best. Source: Hoffmann et al. 2022."""
    return TOKENS_PER_PARAMETER * shape.parameters()
