"""Bigram initialization: begin with the odds of pairs of tokens that counting gives.

A network whose layers add nothing yet predicts from the last token alone: logits(y | x) =
head[y] · norm(embedding[x]). Here embedding and head are chosen such that these logits are the
log-odds of a smoothed bigram model, as nearly as the width allows. What counting knows after one
look at the text need not be learned by gradient descent; training begins where counting ends.

Legend: V vocabulary, D width, x the token read, y the token after it.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.base.errors import ModelError
from nextword.machine.parts import fill, resting_weights, whole
from nextword.model.induction import induction, suits
from nextword.model.transformer import Transformer

EMBEDDING_RMS = 0.3
"""Root mean square of an embedding's entries; a norm follows, so it sets only how fast they change.

After two readings of a megabyte of plays and of manuals (depth 2, AdamW at 0.012) the hold-out's
loss was 1.482 and 108.8 with it, 1.518 and 111.6 with 1, 1.525 and 112.5 with 0.1 (nats a
character; thousands of nats), all with the copier that writes back what was read.
"""
OVERSAMPLING, POWERS = 16, 3
"""Of the randomized singular value decomposition. Source: Halko, Martinsson and Tropp 2011."""
STEPS, RATE, BETAS, EPS, MOST_LOGITS = 15, 0.02, (0.9, 0.95), 1e-8, 1 << 21
"""Of Adam on the smoothed odds themselves, and the logits held in a step: a low rank by least
squares is not that by cross-entropy, and a few such steps are worth a tenth of a nat a token."""
RIDGE = 0.1
COPY = 0.4
"""Times the copier of `initialize`: how strongly what attention looks at is made likelier.

The stories, where names return, half-way through 408 steps: 1.102 nats a token with 0.3, 1.021 with
1, 1.193 with the copier that writes back what was read, 1.214 with a head of its own and random
weights. Plays, two readings: 1.499 with 0.4, 1.501 with 1, 1.482 with the other copier; after 16
small steps 1.787 with 0.3, 2.010 with 1, 1.812 with the other.
"""
SMALLEST = 1e-7
"""Share of a token that was never seen, so that it is not divided by zero."""


class Bigrams(NamedTuple):
    """P(y | x) of a smoothed bigram model: listed for pairs that were seen, else derived."""

    x: Tensor
    """(n,) of each pair seen, rising."""
    y: Tensor
    """(n,)"""
    probability: Tensor
    """(n,) P(y | x)."""
    backoff: Tensor
    """(V,) of each x: P(y | x) = backoff(x) · below(y) where the pair was not seen."""
    below: Tensor
    """(V,)"""
    frequency: Tensor
    """(V,) how often each x is read, adding up to 1."""

    def rows(self, chosen: Tensor) -> Tensor:
        """Return P(· | x) of some x (R,), all different and rising, as (R, V)."""
        size = len(self.below)
        place = torch.full((size,), -1)
        place[chosen] = torch.arange(len(chosen))
        found = self.backoff[chosen, None] * self.below
        mine = place[self.x] >= 0
        found[place[self.x[mine]], self.y[mine]] = self.probability[mine]
        return found


@torch.no_grad()
def begin_with_bigrams(model: Transformer, bigrams: Bigrams, seed: int) -> None:
    """Give a network's embedding and head the odds of pairs, and its attention what suits them.

    Args:
        model: as `initialize` leaves it, of a head of its own, on the CPU.
        bigrams: of its vocabulary.
        seed: of the decomposition's random start, and of the rows that the steps read.

    Raises:
        ModelError: one matrix reads and predicts, which cannot hold odds that are not symmetric.
    """
    if model.shape.tie_word_embeddings:
        raise ModelError("bigram odds need a head of its own: tie_word_embeddings = false")
    generator = torch.Generator().manual_seed(seed)
    width = model.shape.hidden_size
    embedding, head = _fit(*_low_rank(bigrams, width, generator), bigrams, generator)
    # Turned at random, so that no coordinate, and no head of attention, begins with more than
    # another.
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    embedding, head = embedding @ turn, head @ turn
    said = _as_said(embedding, head, bigrams.frequency)
    first = {"model.embed_tokens.weight": EMBEDDING_RMS * embedding, "lm_head.weight": head}
    parts = (model.shape, embedding, head, bigrams.frequency, generator)
    finds = induction(*parts) if suits(model.shape) else None
    for name, weight in resting_weights(model):
        if name in first:
            fill(weight, first[name])
        elif ".self_attn." in name and weight.ndim == 2:
            begun = whole(weight).cpu().clone()
            if name.endswith("o_proj.weight"):
                begun = COPY * said @ begun
            if finds is not None:
                finds.give(name, begun)
            fill(weight, begun)


def _as_said(embedding: Tensor, head: Tensor, frequency: Tensor) -> Tensor:
    """Return (D, D), which turns a token's embedding into what makes the head say this token.

    Where one matrix reads and predicts, attention that writes back what it looks at (the copier of
    `initialize`) makes that token likelier. With a head of its own it does not, and the network is
    long in finding out how to repeat a name. Least squares, weighed by how often each occurs; of
    the size of what comes in.
    """
    width = embedding.shape[1]
    read, share = F.rms_norm(embedding, (width,)), (frequency + SMALLEST)[:, None]
    apart = head - (share * head).sum(dim=0) / share.sum()
    square = read.T @ (share * read)
    square += RIDGE * square.diagonal().mean() * torch.eye(width)
    found: Tensor = torch.linalg.solve(square, read.T @ (share * apart)).T
    size = ((share * (read @ found.T).square()).sum() / share.sum() / width).sqrt()
    return found / size.clamp(min=SMALLEST)


def _low_rank(bigrams: Bigrams, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factor the log-odds into embedding and head, both (V, D), weighed by how often each occurs.

    The norm before the head would take away how far an embedding's odds are from the average; one
    coordinate, which the head does not read, makes all equally long.
    """
    size = len(bigrams.below)
    odds = _Odds(bigrams)
    rank = min(width - 1, size)
    left, values, right = odds.decompose(rank, generator)
    root = values.sqrt()
    embedding, head = left * root / odds.of_x[:, None], right * root / odds.of_y[:, None]
    lengths = embedding.norm(dim=1)
    longest = float(lengths.quantile(0.99).clamp(min=SMALLEST))
    embedding *= (longest / lengths.clamp(min=SMALLEST)).clamp(max=1)[:, None]
    rest = (longest**2 - embedding.square().sum(dim=1)).clamp(min=0).sqrt()
    one = math.sqrt(width) / longest  # a norm gives a root mean square of 1
    embedding = torch.cat((embedding, rest[:, None]), dim=1) * one
    padding = (0, width - embedding.shape[1])
    return F.pad(embedding, padding), F.pad(head / one, (0, width - head.shape[1]))


class _Odds:
    """The matrix of log-odds, each row less its average, weighed; never laid out in full.

    log P(y | x) = [what the pair adds, where it was seen] + log below(y) + log backoff(x), of which
    the last tells no y from another.
    """

    def __init__(self, bigrams: Bigrams) -> None:
        size = len(bigrams.below)
        x, y, known = bigrams.x, bigrams.y, bigrams.probability
        added = (known / (bigrams.backoff[x] * bigrams.below[y])).log()
        self.seen = torch.sparse_coo_tensor(
            torch.stack((x, y)), added, (size, size), is_coalesced=True, check_invariants=False
        )
        self.turned = self.seen.t().coalesce()
        follows = torch.zeros(size).index_add_(0, y, bigrams.frequency[x] * known)
        self.of_x = (bigrams.frequency + SMALLEST).sqrt()
        self.of_y = (follows + SMALLEST).sqrt()
        share = self.of_y.square() / self.of_y.square().sum()
        self.below = bigrams.below.log()
        self.average = (self.seen @ share[:, None])[:, 0] + self.below @ share

    def times(self, right: Tensor) -> Tensor:
        """Multiply (V, V) with (V, r)."""
        right = self.of_y[:, None] * right
        flat = right.sum(dim=0)
        product = self.seen @ right + self.below @ right - self.average[:, None] * flat
        return self.of_x[:, None] * product

    def transposed_times(self, left: Tensor) -> Tensor:
        """Multiply (V, V) transposed with (V, r)."""
        left = self.of_x[:, None] * left
        flat = left.sum(dim=0)
        product = self.turned @ left + self.below[:, None] * flat - self.average @ left
        return self.of_y[:, None] * product

    def decompose(self, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the largest singular values (r,), with their left and right vectors (V, r)."""
        size = len(self.below)
        start = torch.randn(size, min(rank + OVERSAMPLING, size), generator=generator)
        basis = torch.linalg.qr(self.times(start))[0]
        for _ in range(POWERS):
            other = torch.linalg.qr(self.transposed_times(basis))[0]
            basis = torch.linalg.qr(self.times(other))[0]
        other, small = torch.linalg.qr(self.transposed_times(basis))
        left, values, right = torch.linalg.svd(small.T)
        return (basis @ left)[:, :rank], values[:rank], (other @ right.T)[:, :rank]


@torch.enable_grad()
def _fit(
    embedding: Tensor, head: Tensor, bigrams: Bigrams, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Lower the cross-entropy to the smoothed odds by a few steps over many rows at once."""
    size, width = embedding.shape
    embedding, head = embedding.clone().requires_grad_(), head.clone().requires_grad_()
    means = [torch.zeros_like(weight) for weight in (embedding, head)]
    squares = [torch.zeros_like(weight) for weight in (embedding, head)]
    rows = max(1, min(size, MOST_LOGITS // size))
    chosen, share = torch.arange(size), bigrams.frequency
    for step in range(STEPS):
        if rows < size:
            drawn = torch.multinomial(
                bigrams.frequency, rows, replacement=True, generator=generator
            )
            chosen, times = torch.unique(drawn, return_counts=True)
            share = times / rows
        wanted = bigrams.rows(chosen)
        logits = F.rms_norm(embedding[chosen], (width,)) @ head.T
        nats = logits.logsumexp(dim=1) - (wanted * logits).sum(dim=1)
        gradients = torch.autograd.grad((share * nats).sum(), (embedding, head))
        rate = RATE * (1 - step / STEPS)
        with torch.no_grad():
            for weight, gradient, mean, square in zip(
                (embedding, head), gradients, means, squares, strict=True
            ):
                mean.lerp_(gradient, 1 - BETAS[0])
                square.lerp_(gradient.square(), 1 - BETAS[1])
                first, second = (1 - beta ** (step + 1) for beta in BETAS)
                weight.sub_(rate / first * mean / ((square / second).sqrt() + EPS))
    return embedding.detach(), head.detach()
