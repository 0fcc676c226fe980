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

    def bandwidth(self, among: int, apart: int = 1) -> float:
        """Return the bytes a second that each card of a group receives, other groups at work too.

        A message to all of several machines enters each of them over the networks of those of its
        cards that belong to the group.

        Args:
            among: how many they are.
            apart: by number, from one to the next.
        """
        link, here = self.card.link, max(self.per_machine // apart, 1)
        if among > here:
            link = min(link, here * self.card.network)
        return LINKED * 1e9 * link

    def between(self) -> float:
        """Return the bytes a second from a card to its like on other machines."""
        return LINKED * 1e9 * self.card.network


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a card does in a step, alone or with others."""

    rows: int
    """Of a step, of this card or its group."""
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
    tensor: int = 1
    """Cards that compute each layer together."""
    context: int = 1
    """Groups of those that share the positions of each row."""

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
    tokens = work.micro_rows * shape.context / (work.tensor * work.context)
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
    # What is sent in the middle of a layer nothing hides.
    within = _seconds_within_layers(shape, fleet, work)
    forward, backward = forward + within, backward + within * (1 + (work.recompute != "none"))
    if parallel == "ddp" and work.tensor == 1:
        whole = layers * layer + tables
        message = _all_reduce(work.added_bytes * whole, fleet)
        hidden = layers * backward * 0.9  # the last gradients have nothing to hide behind
        return (
            work.parts * (layers * (forward + backward) + head)
            + max(message - hidden, message / max(layers, 1))
            + update
        )
    pieces, apart = pieces_of(fleet, parallel, work.tensor), work.tensor
    inner = pieces // apart
    gather = _gathering(work.sent_bytes * layer / apart, inner, fleet, apart)
    add = _gathering(work.added_bytes * layer / apart, inner, fleet, apart) + _copies_add(
        work.added_bytes * layer / pieces, pieces, fleet
    )
    again = 0.0 if work.stays else gather
    of_layers = layers * (max(forward, gather) + max(backward, again + add))
    exposed = _gathering((work.sent_bytes + work.added_bytes) * tables, pieces, fleet)
    exposed += _copies_add(work.added_bytes * tables / pieces, pieces, fleet)
    return work.parts * (of_layers + head + exposed) + update


def _weights(shape: Shape) -> tuple[int, int]:
    """Count the weights of a layer, and of embedding and head together."""
    tables = shape.vocab_size * shape.hidden_size
    layer = (shape.matrix_parameters() - tables) // shape.num_hidden_layers
    return layer, tables if shape.tie_word_embeddings else 2 * tables


def pieces_of(fleet: Fleet, parallel: str, tensor: int) -> int:
    """Return into how many pieces the weights are divided."""
    inner = {"ddp": tensor, "hsdp": fleet.per_machine}.get(parallel, fleet.count)
    return min(inner, fleet.count)


def _seconds_within_layers(shape: Shape, fleet: Fleet, work: Work) -> float:
    """Reckon the time of a layer's own messages, forward or backward."""
    group, among = within_layers(shape, work), work.tensor
    together = group[0] / fleet.bandwidth(among) + 4 * HOP_SECONDS * (among - 1)
    shared = group[1] / fleet.bandwidth(work.context, among) + 2 * HOP_SECONDS * (work.context - 1)
    return together + shared


def within_layers(shape: Shape, work: Work) -> tuple[float, float]:
    """Return the bytes that a card sends in a layer's forward pass, and as many in its backward.

    To those that compute it together: all positions twice gathered and twice handed out. To those
    that share its rows: queries, keys and values, and what comes of them. In bfloat16.
    """
    tensor, context = work.tensor, work.context
    positions = work.micro_rows * shape.context / context
    together = 2 * 4 * positions * shape.hidden_size * (tensor - 1) / tensor
    queries = shape.num_attention_heads / tensor
    keys = max(shape.num_key_value_heads / tensor, context) if context > 1 else 0
    shared = 2 * positions * shape.head_dim * (2 * queries + 2 * keys) * (context - 1) / context
    return together, shared


def _gathering(whole: float, among: int, fleet: Fleet, apart: int = 1) -> float:
    """Reckon the time until each of a group has all shares, or the sum of its own."""
    others = among - 1
    return whole * others / among / fleet.bandwidth(among, apart) + HOP_SECONDS * others


def _all_reduce(whole: float, fleet: Fleet) -> float:
    """Reckon the time until each card has the sum of all."""
    return 2 * _gathering(whole, fleet.count, fleet)


def _copies_add(share: float, pieces: int, fleet: Fleet) -> float:
    """Reckon the time until those that hold the same share have its sum."""
    copies = fleet.count // pieces
    if copies == 1:
        return 0.0
    if pieces < fleet.per_machine:
        return 2 * _gathering(share, copies, fleet, pieces)
    return 2 * (share * (copies - 1) / copies / fleet.between() + HOP_SECONDS * (copies - 1))


def _update_seconds(shape: Shape, fleet: Fleet, parallel: str, work: Work) -> float:
    """Reckon the time of moving the weights."""
    shares = pieces_of(fleet, parallel, work.tensor)
    layer, tables = _weights(shape)
    layers = shape.num_hidden_layers
    held = (layers * layer + tables) / shares
    # Weight, gradient and two moments are read, weight and moments written.
    seconds = 28 * held / (fleet.card.bandwidth * 1e12)
    if work.optimizer != "muon":
        return seconds
    is_whole = parallel == "ddp" and work.tensor == 1
    share = fleet.count if is_whole else shares
    operations = 0.0
    for rows, columns, times in _matrices(shape):
        least, most = sorted((rows, columns))
        # One half of two symmetric products, and one that is none.
        operations += times * ITERATIONS * (3 * least * least * most + least**3)
    seconds += max(operations * layers / share, operations / 7) / fleet.card.products
    if is_whole:
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
    of_layers, apart = shape.num_hidden_layers * layer, work.tensor
    is_muon = work.optimizer == "muon"
    times = work.parts * shape.num_hidden_layers * (2 + (work.recompute != "none"))
    together, shared = (times * each for each in within_layers(shape, work))
    if parallel == "ddp" and apart == 1:
        others = (fleet.count - 1) / fleet.count
        whole = 4 * (2 * (of_layers + tables) + of_layers * is_muon) * others
        return _added(_split(whole, fleet, fleet.count), _split(shared, fleet, work.context))
    pieces = pieces_of(fleet, parallel, apart)
    inner, copies = pieces // apart, fleet.count // pieces
    weights = 4 * work.parts * 3 * of_layers / apart * (inner - 1) / inner
    all_pieces = 4 * work.parts * 2 * tables * (pieces - 1) / pieces
    all_pieces += 4 * 2 * of_layers / pieces * (pieces - 1) / pieces * is_muon
    added = 4 * work.parts * 2 * (of_layers + tables) / pieces * (copies - 1) / copies
    return _added(
        _split(weights, fleet, inner, apart),
        _split(all_pieces, fleet, pieces),
        _split(added, fleet, copies, pieces),
        _split(together, fleet, apart),
        _split(shared, fleet, work.context, apart),
    )


def _added(*pairs: tuple[float, float]) -> tuple[float, float]:
    within, between = (sum(one) for one in zip(*pairs, strict=True))
    return within, between


def _split(total: float, fleet: Fleet, among: int, apart: int = 1) -> tuple[float, float]:
    """Divide what a card of a group sends around its ring: one of a machine's is its last.

    Args:
        total: bytes.
        fleet: the cards.
        among: how many the group has.
        apart: by number, from one to the next.
    """
    here = max(fleet.per_machine // apart, 1)
    if among <= here:
        return total, 0.0
    between = total / here
    return total - between, between
