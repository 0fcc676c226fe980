"""How long a step takes on many cards, and what they send: reckoned, not tried.

Products and attention at the rates that training is known to reach, passes over memory at the
memory's, messages at the links', and of what happens at once the longer. benchmarks/plans.py holds
it against runs that others have published.

Legend: N cards, L layers, D width, T positions, V vocabulary, H heads, K head width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nextword.machine.accelerators import Accelerator
from nextword.model.shape import Shape
from nextword.training.layers import SECONDS_A_LAYER

PLAIN_PASSES, FUSED_PASSES = 200, 130
"""Bytes that a layer's forward pass reads and writes for a token and each unit of D, beside its
products; backward twice that. The first was fitted to runs of MPT; where layers are compiled, which
makes fewer passes, it lies between what torchtitan's runs and one on an H200 ask for (more and less
than that: benchmarks/plans.py)."""
BACKWARD_ATTENTION = 2.5
"""In units of the forward pass: five products for its two, as kernels compute scores once more."""
LINKED = 0.7
"""Share of the links' peak that large messages reach."""
HOP_SECONDS = 6e-6
"""Of each further card that a message passes through."""
LOGIT_BYTES = 12
"""Read and written for each logit of the loss."""
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
