"""Induction at the start: attention that finds where the last tokens stood before.

A text repeats itself: names, phrases, whole lines. A network learns to use that with two layers. In
the first a head looks one place back, so that each place knows which token stands before it; in the
second a head looks for the places before which the token now read stood, and says again what came
there (an induction head: Olsson et al., In-context Learning and Induction Heads, 2022). Gradient
descent is long in finding this, and on a small text it learns the text by heart first. It can be
written down instead, for every token has a code in what was counted:

    layer 0, head 0    looks 1 place back,  writes a code of the token there into a part S₁
    layer 0, head 1    looks 2 places back, writes a code of the token there into a part S₂
    layer 1, head 0    key: S₁ and S₂; query: codes of the token read and, from S₁, of that before

So the second layer looks where the last two tokens stood before, or else the last one. Training
goes on from there as from any weights.

Legend: V vocabulary, D width, K width of a head, R numbers of a code.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.model.shape import Shape

CODES = (5 / 16, 3 / 16)
"""Share of a head's width for the code of the token one place back, and two."""
TURNING = 3 / 16
"""Of a head's pairs of coordinates, the fastest turning ones by which a head tells one place from
the next; that which turns slowly compares codes, wherever they stand."""
WRITTEN = 0.3
"""Size of a code's numbers beside those of the embedding, whose root mean square is the same."""
SAID = 2.0
"""Times what every head says again of what it looks at."""
NARROWEST = 16
"""Width of a head in which codes can be told apart."""
SMALLEST = 1e-7
"""Share of a token that is never read, so that nothing is divided by zero."""
RIDGE = 1e-3
FLATTEST = 1e-4
"""Variance, beside 1 of a number that is read, below which a direction tells no token apart."""


def suits(shape: Shape) -> bool:
    """Whether a network has the heads, the layers and the room for it."""
    heads_and_layers = min(shape.num_hidden_layers, shape.num_key_value_heads) > 1
    room = shape.head_dim >= NARROWEST and 4 * sum(_lengths(shape)) <= shape.hidden_size
    return heads_and_layers and room and shape.causal and shape.qk_norm


class Induction(NamedTuple):
    """What the first two layers' attention begins with."""

    queries_per_key: int
    head_dim: int
    nearby: tuple[Tensor, Tensor]
    """Queries (K,) and keys (heads, K) of heads that look so many places back, for …"""
    constant: Tensor
    """… (D,): what is read, times this, is 1 for every token."""
    code: Tensor
    """(R, D), which gives the code of a token that is read."""
    parts: tuple[Tensor, Tensor]
    """(D, R₁) and (D, R₂): orthonormal, where codes of the tokens before are written."""
    places: tuple[Tensor, Tensor]
    """(R₁,) and (R₂,): coordinates of a head in which they are compared."""

    def give(self, name: str, weight: Tensor) -> None:
        """Change a weight that is one of these, in place; whole, as `initialize` left it."""
        for kind in ("q_proj", "k_proj", "v_proj", "o_proj"):
            if name.endswith(f"layers.0.self_attn.{kind}.weight"):
                for number in range(2):
                    self._look_back(kind, number, weight)
            if name.endswith(f"layers.1.self_attn.{kind}.weight"):
                self._look_for_the_same(kind, weight)

    def _look_back(self, kind: str, number: int, weight: Tensor) -> None:
        """Give layer 0's heads what looks 1 and 2 places back and writes a code."""
        query = self._of_head(number * self.queries_per_key)
        key, size = self._of_head(number), self.parts[number].shape[1]
        if kind == "q_proj":
            weight[query] = torch.outer(self.nearby[0], self.constant)
        elif kind == "k_proj":
            weight[key] = torch.outer(self.nearby[1][number], self.constant)
        elif kind == "v_proj":
            weight[key] = 0.0
            weight[key][:size] = self.code[:size]
        else:
            for other in range(self.queries_per_key):  # which would write the same code elsewhere
                weight[:, self._of_head(number * self.queries_per_key + other)] = 0.0
            weight[:, query][:, :size] = WRITTEN * self.parts[number]

    def _look_for_the_same(self, kind: str, weight: Tensor) -> None:
        """Give layer 1's first head what looks where the last tokens stood before."""
        (near, far), (one, two), head = self.places, self.parts, self._of_head(0)
        if kind == "q_proj":
            weight[head] = 0.0
            weight[near] = self.code[: len(near)]
            weight[far] = one.T[: len(far)]
        elif kind == "k_proj":
            weight[head] = 0.0
            weight[near], weight[far] = one.T, two.T
        elif kind == "o_proj":
            weight[:, head] *= SAID

    def _of_head(self, number: int) -> slice:
        return slice(number * self.head_dim, (number + 1) * self.head_dim)


def induction(
    shape: Shape, embedding: Tensor, head: Tensor, frequency: Tensor, generator: torch.Generator
) -> Induction:
    """Work it out for tokens that are read and said as given.

    Args:
        shape: one that it suits.
        embedding: (V, D), before the norm.
        head: (V, D), what says each token.
        frequency: (V,) how often each is read, adding up to 1.
        generator: of the codes.
    """
    lengths = _lengths(shape)
    width, half, size = shape.hidden_size, shape.head_dim // 2, sum(lengths)
    read, share = F.rms_norm(embedding, (width,)), (frequency + SMALLEST)[:, None]
    rare = share.sqrt() / share.sqrt().sum()  # so that rare tokens have codes of their own, too
    apart = head - (share * head).sum(dim=0) / share.sum()
    said, used = apart.T @ (share * apart), read.T @ (rare * read)
    order = torch.linalg.eigh(said / said.trace() + used / width)[1]
    # Where the head reads least, and the embedding says least, there is room for something else.
    free = order[:, :size][:, torch.randperm(size, generator=generator)]
    constant = torch.linalg.solve(used + RIDGE * torch.eye(width), (rare * read).sum(dim=0))
    turns = shape.rope_theta ** (-2 * torch.arange(half, dtype=torch.float32) / shape.head_dim)
    fastest = torch.arange(half) < max(1, round(TURNING * half))
    query = torch.cat((fastest.float(), torch.zeros(half)))
    back = torch.arange(1, 3)[:, None] * turns
    keys = torch.cat((fastest * back.cos(), fastest * back.sin()), dim=1)
    slow = torch.arange(half - size // 2, half)
    slowest = torch.cat((slow, half + slow))[torch.randperm(size, generator=generator)]
    return Induction(
        queries_per_key=shape.num_attention_heads // shape.num_key_value_heads,
        head_dim=shape.head_dim,
        nearby=(query, keys),
        constant=constant,
        code=_codes(read, rare, order[:, size:], size, generator),
        parts=(free[:, : lengths[0]], free[:, lengths[0] :]),
        places=(slowest[: lengths[0]], slowest[lengths[0] :]),
    )


def _lengths(shape: Shape) -> tuple[int, int]:
    """Return how many numbers the codes of both places have, even together."""
    near, far = (round(share * shape.head_dim) for share in CODES)
    return near + (near + far) % 2, far


def _codes(
    read: Tensor, weights: Tensor, rest: Tensor, size: int, generator: torch.Generator
) -> Tensor:
    """Return (R, D), by which tokens have codes that are alike for no two of them.

    Of what differs most among tokens, outside the part where codes are written, each direction
    counts alike.
    """
    within = read @ rest
    values, vectors = torch.linalg.eigh(within.T @ (weights * within))
    kept = min(2 * size, rest.shape[1])
    flat = vectors[:, -kept:] / values[-kept:].clamp(min=FLATTEST).sqrt()
    turned = torch.linalg.qr(torch.randn(kept, size, generator=generator))[0]
    codes: Tensor = (rest @ flat @ turned).T
    return codes
