"""How a network could be divided among many cards: memory, what is sent, and how fast it learns.

Memory is counted by a rehearsal, which runs the program itself without numbers; time is reckoned.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nextword.base.errors import SettingsError
from nextword.explanation.step_time import Fleet, Work, pieces_of, sent_bytes, step_seconds
from nextword.machine.options import MachineSettings
from nextword.machine.ranks import Ranks
from nextword.model.shape import Shape
from nextword.training.dividing import arranged, check_heads
from nextword.training.options import TrainingSettings
from nextword.training.plan import MICRO_BATCH_TOKENS, TOKENS_PER_PARAMETER
from nextword.training.rehearsal import Case, Held, pretended, rehearse
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
    tensor: int
    """Cards that compute each layer together."""
    context: int
    """Groups of those that share the positions of each row."""
    rows: int
    """Of a step, all cards."""
    micro_rows: int
    """At once, of a card or its group."""
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


@dataclass(frozen=True)
class Way:
    """A way of dividing a network among cards."""

    parallel: str
    recompute: str
    tensor: int = 1
    context: int = 1

    @property
    def together(self) -> int:
        """Cards that work on the same rows."""
        return self.tensor * self.context


class _Rehearsals:
    """What a card holds in each way, from a few rehearsals."""

    def __init__(
        self, shape: Shape, training: TrainingSettings, fleet: Fleet, ways: Sequence[Way] = ()
    ) -> None:
        self.shape, self.training, self.fleet = shape, training, fleet
        self._again = {way.recompute for way in ways}
        self._known: dict[tuple[int, int, Way], Held] = {}

    def held(self, way: Way) -> Callable[[int], Held]:
        """Return a function: rows at once → what a card holds."""
        least = -(-LEAST_TOKENS * way.together // self.shape.context)
        shares = pieces_of(self.fleet, way.parallel, way.tensor) // way.tensor
        some = -(-FEW // way.context) * way.context  # who shares rows divides weights too
        few = 1 if way.parallel == "ddp" else min(shares, some)
        less, more = self._rehearsed(some, way, least, 2 * least)
        (one,) = self._rehearsed(few, way, least)
        floor = _of_an_owner(self.shape) if self.training.optimizer == "muon" else 0
        one = _among_more(one, few / shares, floor)
        # A row takes as much whoever holds the weights.
        slopes = [(b - a) / least for a, b in zip(less.peaks, more.peaks, strict=True)]

        def held(rows: int) -> Held:
            if rows < least:  # below what the loss works on at once it is no straight line
                (there,) = self._rehearsed(few, way, rows)
                return _among_more(there, few / shares, floor)
            further = [round(slope * (rows - least)) for slope in slopes]
            peaks = [peak + row for peak, row in zip(one.peaks, further, strict=True)]
            return Held(one.weights, one.gradients, one.state, *peaks)

        return held

    def _rehearsed(self, among: int, way: Way, *rows: int) -> list[Held]:
        """Return what a card holds where so many divide the weights; 1: where each holds all.

        Whatever is computed a second time is asked for at once: it is the same network.
        """
        parallel = "ddp" if among == 1 else "fsdp"
        keys = {
            (again, many): (among, many, replace(way, parallel=parallel, recompute=again))
            for again in sorted({*self._again, way.recompute})
            for many in rows
        }
        if any(key not in self._known for key in keys.values()):
            groups = min(self.fleet.count // way.together, 2) * way.context
            size = way.tensor * (groups if among == 1 else among)
            with pretended(size, size, parallel, tensor=way.tensor, context=way.context) as ranks:
                cases = [Case(many, again) for again, many in keys]
                found = rehearse(self.shape, self.training, ranks, cases)
            self._known.update(zip(keys.values(), found, strict=True))
        return [self._known[keys[way.recompute, many]] for many in rows]


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
    batch_tokens: int,
    tokens: float,
    ways: Sequence[Way] = (),
) -> list[Layout]:
    """Return every way that this program knows of, the fastest that fits first.

    Args:
        shape: of the network.
        training: says the optimizer, and the tokens at once if that was said.
        fleet: the cards.
        batch_tokens: of a step, all cards; made a multiple of what they read at least.
        tokens: to learn from.
        ways: of dividing, with what is computed a second time; default: all there are, with layers
            computed by one card and by a whole machine's.

    Raises:
        SettingsError: the cards do not fill their machines.
    """
    if fleet.count > fleet.per_machine and fleet.count % fleet.per_machine:
        raise SettingsError(
            f"{fleet.count} cards do not fill machines of {fleet.per_machine}; say how many each "
            "has by --per-machine"
        )
    ways = ways or ways_of(shape, fleet)
    rehearsals = _Rehearsals(shape, training, fleet, ways)
    found = [_best(rehearsals, way, batch_tokens=batch_tokens, tokens=tokens) for way in ways]
    return sorted(found, key=lambda one: (bool(one.lacks), -one.tokens_per_second))


def ways_of(
    shape: Shape, fleet: Fleet, tensor: int | None = None, context: int | None = None
) -> list[Way]:
    """List the ways of dividing a network.

    Args:
        shape: of the network.
        fleet: the cards.
        tensor: cards that compute each layer together; default: one, or as many as can of a
            machine's.
        context: groups that share rows; default: one.

    Raises:
        SettingsError: the network or the cards cannot be divided so.
    """
    known = ["ddp"] + ["fsdp"] * (fleet.count > 1) + ["hsdp"] * (fleet.machines > 1)
    here = min(fleet.per_machine, fleet.count)
    ranks = Ranks(size=fleet.count, on_machine=here, is_even=True)
    asked = MachineSettings(tensor=tensor or 1, context=context or 1)
    check_heads(shape, arranged(ranks, asked))
    most = math.gcd(here, shape.num_key_value_heads, shape.intermediate_size)
    tensors = [tensor] if tensor else [1, most] if most > 1 and not context else [1]
    return [
        Way(parallel, recompute, many, asked.context)
        for many in tensors
        for parallel, recompute in itertools.product(known, RECOMPUTE)
        if many == 1 or parallel == "ddp" or many < {"fsdp": fleet.count}.get(parallel, here)
    ]


def _best(rehearsals: _Rehearsals, way: Way, *, batch_tokens: int, tokens: float) -> Layout:
    """Return a way with the most rows at once that fit, or with one where none does."""
    shape, training, fleet = rehearsals.shape, rehearsals.training, rehearsals.fleet
    rows = usual_rows(shape, batch_tokens, fleet.count // way.together)
    mine = rows * way.together // fleet.count
    most = training.micro_batch_tokens or MICRO_BATCH_TOKENS["cuda"]
    most = max(1, min(most * way.together // shape.context, mine))
    room = USABLE * fleet.card.memory * 1e9
    held = rehearsals.held(way)
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
        recompute=way.recompute,
        compiled=True,  # as auto does for any run that is worth a plan
        optimizer=training.optimizer,
        tensor=way.tensor,
        context=way.context,
    )
    seconds = step_seconds(shape, fleet, way.parallel, work)
    rate = rows * shape.context / seconds
    within, between = sent_bytes(shape, fleet, way.parallel, work)
    hours = tokens / rate / 3600
    return Layout(
        parallel=way.parallel,
        recompute=way.recompute,
        tensor=way.tensor,
        context=way.context,
        rows=rows,
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
        * (way.tensor if way.parallel == "ddp" else min(fleet.per_machine, fleet.count)),
        sent_within=within,
        sent_between=between,
        step_seconds=seconds,
        tokens_per_second=rate,
        mfu=rate * shape.flops_per_token() / (fleet.count * fleet.card.tflops * 1e12),
        days=hours / 24,
        megawatt_hours=hours * fleet.count * fleet.card.watts / 1e6,
        lacks=lacks,
    )


def usual_rows(shape: Shape, batch_tokens: int, groups: int) -> int:
    """Return the rows of a step: what was asked for, shared out evenly, at least one a group."""
    rows = max(1, round(batch_tokens / shape.context))
    return max(1, rows // groups) * groups


def usual_tokens(shape: Shape) -> int:
    """Return the tokens from which such a network learns best. Source: Hoffmann et al. 2022."""
    return TOKENS_PER_PARAMETER * shape.parameters()
