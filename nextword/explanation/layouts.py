"""How a network could be divided among many cards: memory, what is sent, and how fast it learns.

Memory is counted by a rehearsal, which runs the program itself without numbers. Time is reckoned:
products and attention at the rates that training is known to reach, passes over memory at the
memory's, messages at the links', and of what happens at once the longer. benchmarks/plans.py holds
it against runs that others have published.

Legend of shapes: N cards, L layers, D width, T positions, V vocabulary, H heads, K head width.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nextword.base.errors import SettingsError
from nextword.machine.accelerators import Accelerator
from nextword.model.shape import Shape
from nextword.training.layers import SECONDS_A_LAYER
from nextword.training.options import TrainingSettings
from nextword.training.plan import MICRO_BATCH_TOKENS, TOKENS_PER_PARAMETER
from nextword.training.rehearsal import Held, pretended, rehearse
from nextword.training.room import RECOMPUTE

FUSED_PASSES, PLAIN_PASSES = 200, 300
"""Bytes that a layer's forward pass reads and writes for a token and each unit of D, beside its
products; backward twice that. The first fitted to runs of MPT (benchmarks/plans.py), the second
half as much again: norms, activation and rotation one after the other."""
BACKWARD_ATTENTION = 2.5
"""In units of the forward pass: five products for its two, as kernels compute scores once more."""
LINKED = 0.7
"""Share of the links' peak that large messages reach."""
HOP_SECONDS = 6e-6
"""Of each further card that a message passes through."""
LOGIT_BYTES = 12
"""Read and written for each logit of the loss."""
USABLE = 0.92
"""Share of a card's memory: the rest is taken by its driver, by what connects the cards, and by
gaps between pieces."""
MOST_REHEARSED = 16
"""Among how many a rehearsal divides weights; what each of more holds of them is reckoned."""
ITERATIONS = 5
"""Of Muon's orthogonalisation."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Cards, and how they stand."""

    card: Accelerator
    count: int
    per_machine: int

    @property
    def machines(self) -> int:
        """How many machines there are."""
        return self.count // self.per_machine

    def bandwidth(self, among: int) -> float:
        """Return the bytes a second that each card of a group receives, other groups at work too.

        A message to all of several machines enters each of them over the networks of all its cards.
        """
        link = self.card.link
        if among > self.per_machine:
            link = min(link, self.per_machine * self.card.network)
        return LINKED * 1e9 * link

    def between(self) -> float:
        """Return the bytes a second from a card to its like on other machines."""
        return LINKED * 1e9 * self.card.network


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a card does in a step."""

    rows: int
    """Of a step, of this card."""
    micro_rows: int
    recompute: str
    compiled: bool
    optimizer: str
    sent_bytes: int = 4
    """Of each weight as it is gathered: what this program sends."""
    added_bytes: int = 4
    """Of each gradient as it is added up."""
    stays: bool = False
    """Whether gathered weights stay until their gradient, and are not gathered twice."""

    @property
    def parts(self) -> int:
        """How often a step's forward pass runs."""
        return -(-self.rows // self.micro_rows)


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


def step_seconds(shape: Shape, fleet: Fleet, parallel: str, work: Work) -> float:
    """Reckon the time of a step.

    Args:
        shape: of the network.
        fleet: the cards.
        parallel: ddp, fsdp or hsdp.
        work: what each does.
    """
    card, layers, width = fleet.card, shape.num_hidden_layers, shape.hidden_size
    tokens = work.micro_rows * shape.context
    layer, tables = _weights(shape)
    passes = FUSED_PASSES if work.compiled else PLAIN_PASSES
    products = 2 * layer * tokens / card.products
    looks = (2 if shape.causal else 4) * shape.num_attention_heads * shape.head_dim * shape.context
    attention = looks * tokens / (card.tflops * 1e12 * card.attention)
    passing = passes * width * tokens / (card.bandwidth * 1e12)
    forward = products + attention + passing
    backward = 2 * products + BACKWARD_ATTENTION * attention + 2 * passing
    backward += {"none": 0.0, "selective": passing, "full": forward}[work.recompute]
    if not work.compiled:  # kernels cannot be started faster
        forward = max(forward, SECONDS_A_LAYER / 3)
        backward = max(backward, SECONDS_A_LAYER * 2 / 3)
    head = 6 * shape.vocab_size * width * tokens / card.products
    head += LOGIT_BYTES * shape.vocab_size * tokens / (card.bandwidth * 1e12)
    update = _update_seconds(shape, fleet, parallel, work)
    if parallel == "ddp":
        whole = layers * layer + tables
        message = _all_reduce(work.added_bytes * whole, fleet)
        hidden = layers * backward * 0.9  # the last gradients have nothing to hide behind
        return (
            work.parts * (layers * (forward + backward) + head)
            + max(message - hidden, message / max(layers, 1))
            + update
        )
    inner = fleet.count if parallel == "fsdp" else min(fleet.per_machine, fleet.count)
    gather = _gathering(work.sent_bytes * layer, inner, fleet)
    add = _gathering(work.added_bytes * layer, inner, fleet) + _copies_add(
        work.added_bytes * layer / inner, inner, fleet
    )
    again = 0.0 if work.stays else gather
    of_layers = layers * (max(forward, gather) + max(backward, again + add))
    exposed = _gathering((work.sent_bytes + work.added_bytes) * tables, inner, fleet)
    exposed += _copies_add(work.added_bytes * tables / inner, inner, fleet)
    return work.parts * (of_layers + head + exposed) + update


def _weights(shape: Shape) -> tuple[int, int]:
    """Count the weights of a layer, and of embedding and head together."""
    tables = shape.vocab_size * shape.hidden_size
    layer = (shape.matrix_parameters() - tables) // shape.num_hidden_layers
    return layer, tables if shape.tie_word_embeddings else 2 * tables


def _gathering(whole: float, among: int, fleet: Fleet) -> float:
    """Reckon the time until each of a group has all shares, or the sum of its own."""
    others = among - 1
    return whole * others / among / fleet.bandwidth(among) + HOP_SECONDS * others


def _all_reduce(whole: float, fleet: Fleet) -> float:
    """Reckon the time until each card has the sum of all."""
    return 2 * _gathering(whole, fleet.count, fleet)


def _copies_add(share: float, inner: int, fleet: Fleet) -> float:
    """Reckon the time until those that hold the same share have its sum."""
    copies = fleet.count // inner
    if copies == 1:
        return 0.0
    return 2 * (share * (copies - 1) / copies / fleet.between() + HOP_SECONDS * (copies - 1))


def _update_seconds(shape: Shape, fleet: Fleet, parallel: str, work: Work) -> float:
    """Reckon the time of moving the weights."""
    shares = {"ddp": 1, "fsdp": fleet.count}.get(parallel, fleet.per_machine)
    layer, tables = _weights(shape)
    layers = shape.num_hidden_layers
    held = (layers * layer + tables) / shares
    # Weight, gradient and two moments are read, weight and moments written.
    seconds = 28 * held / (fleet.card.bandwidth * 1e12)
    if work.optimizer != "muon":
        return seconds
    share = fleet.count if parallel == "ddp" else shares
    operations = 0.0
    for rows, columns, times in _matrices(shape):
        least, most = sorted((rows, columns))
        # One half of two symmetric products, and one that is none.
        operations += times * ITERATIONS * (3 * least * least * most + least**3)
    seconds += max(operations * layers / share, operations / 7) / fleet.card.products
    if parallel == "ddp":
        return seconds + _gathering(4 * layers * layer, fleet.count, fleet)
    # Rows go to a matrix's owner and come back.
    moved = 2 * 4 * layers * layer / shares * (shares - 1) / shares
    return seconds + moved / fleet.bandwidth(shares) + 2 * HOP_SECONDS * (shares - 1)


def _matrices(shape: Shape) -> Iterator[tuple[int, int, int]]:
    """Yield rows, columns and number of a layer's matrices."""
    width = shape.hidden_size
    queries, keys = (
        heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads)
    )
    yield from ((queries, width, 2), (keys, width, 2), (shape.intermediate_size, width, 3))


def sent_bytes(shape: Shape, fleet: Fleet, parallel: str, work: Work) -> tuple[float, float]:
    """Return the bytes that a card sends in a step: within its machine, and between machines.

    The formulas that tests/traffic.py counts, operation by operation. Of a message to all of
    several machines each of a machine's cards sends its part over its own network.
    """
    layer, tables = _weights(shape)
    layers, machines = shape.num_hidden_layers, fleet.machines
    of_layers, whole = layers * layer, layers * layer + tables
    others = (fleet.count - 1) / fleet.count
    is_muon = work.optimizer == "muon"
    if parallel == "ddp":
        total = 4 * (2 * whole + of_layers * is_muon) * others
        return _split(total, fleet)
    inner = fleet.count if parallel == "fsdp" else min(fleet.per_machine, fleet.count)
    beside = (inner - 1) / inner
    total = 4 * work.parts * (3 * of_layers + 2 * tables) * beside
    total += 4 * 2 * of_layers / inner * beside * is_muon
    if parallel == "fsdp":
        return _split(total, fleet)
    between = 4 * work.parts * 2 * whole / inner * (machines - 1) / machines
    return total, between


def _split(total: float, fleet: Fleet) -> tuple[float, float]:
    """Divide what a card sends around a ring of all: one of a machine's cards is its last."""
    if fleet.machines <= 1:
        return total, 0.0
    between = total / fleet.per_machine
    return total - between, between


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
    found = [
        _best(shape, training, fleet, way, recompute, rows=rows, tokens=tokens)
        for way, recompute in ways or itertools.product(known, RECOMPUTE)
    ]
    return sorted(found, key=lambda one: (bool(one.lacks), -one.tokens_per_second))


def _best(
    shape: Shape,
    training: TrainingSettings,
    fleet: Fleet,
    parallel: str,
    recompute: str,
    *,
    rows: int,
    tokens: float,
) -> Layout:
    """Return a way with the most rows at once that fit, or with one where none does."""
    mine = rows // fleet.count
    most = training.micro_batch_tokens or MICRO_BATCH_TOKENS["cuda"]
    most = max(1, min(most // shape.context, mine))
    room = USABLE * fleet.card.memory * 1e9
    held = _held(shape, training, fleet, parallel, recompute)
    micro = next((n for n in range(most, 0, -1) if held(n).peak <= room), 1)
    memory = held(micro)
    lacks = ""
    if memory.peak > room:
        lacks = (
            f"needs {memory.peak / 1e9:,.0f} GB a card, {fleet.card.memory:g} GB less "
            f"{1 - USABLE:.0%} are there"
        )
    work = Work(
        rows=mine, micro_rows=micro, recompute=recompute,
        # Layers whose weights are divided are computed as they stand.
        compiled=parallel == "ddp", optimizer=training.optimizer,
    )  # fmt: skip
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
        host_bytes=(memory.weights + memory.state) * min(fleet.per_machine, fleet.count),
        sent_within=within,
        sent_between=between,
        step_seconds=seconds,
        tokens_per_second=rate,
        mfu=rate * shape.flops_per_token() / (fleet.count * fleet.card.tflops * 1e12),
        days=hours / 24,
        megawatt_hours=hours * fleet.count * fleet.card.watts / 1e6,
        lacks=lacks,
    )


def _held(
    shape: Shape, training: TrainingSettings, fleet: Fleet, parallel: str, recompute: str
) -> Any:
    """Return a function: rows at once → what a card holds.

    Two rehearsals speak for all: what is kept grows evenly with the rows.
    """
    count = fleet.count
    shares = {"ddp": 1, "fsdp": count}.get(parallel, fleet.per_machine)
    few = min(shares, MOST_REHEARSED)
    size = {"ddp": min(count, 2), "fsdp": few}.get(parallel, 2 * few)
    # A step of so many tokens is beyond what the loss has room for at once.
    least = -(-4096 // shape.context)
    with pretended(size, few, parallel) as ranks:
        one, two = (
            _fewer(rehearse(shape, training, ranks, n, recompute=recompute), few / shares)
            for n in (least, 2 * least)
        )
    return lambda rows: one.towards(two, (rows - least) / least)


def _fewer(held: Held, share: float) -> Held:
    """Return what is held where weights are divided among more."""
    fixed = held.weights + held.gradients + held.state
    less = round(fixed * (1 - share))
    weights, gradients, state = (
        round(part * share) for part in (held.weights, held.gradients, held.state)
    )
    return Held(weights, gradients, state, held.in_step - less, max(held.in_update - less, 0))


def usual_rows(shape: Shape, batch_tokens: int, fleet: Fleet) -> int:
    """Return the rows of a step: what was asked for, shared out evenly, at least one a card."""
    rows = max(1, round(batch_tokens / shape.context))
    return max(1, rows // fleet.count) * fleet.count


def usual_tokens(shape: Shape) -> int:
    """Return the tokens from which such a network learns best. Source: Hoffmann et al. 2022."""
    return TOKENS_PER_PARAMETER * shape.parameters()
