"""Random initialization: seeded, and such that at step 0 every token is nearly equally likely."""

import math

import torch
from torch import Tensor

from nextword.machine.parts import fill, resting_weights, whole_shape
from nextword.model.transformer import Transformer

EMBEDDING_STD = 0.002
"""So small that words used alike come to lie together before anything else is learned.

On an early form of the built-in stories the loss after 450 steps was 1.12 with it and 1.17 with the
customary 0.02.
"""
QK_START = 0.5
"""Of queries' and keys' matrices where no norm follows: attention begins nearly even.

Masked models on the stories ended after the same steps at 1.038 nats a hidden token with it, at
1.079 with 1, 1.061 with 0.25 and 2.06 with 2.
"""
QK_NORM_START = 1.5
"""Normalized queries and keys of width K cannot differ by more than √K in their product.

Starting at 1.5 lets a head choose one position sharply from the first steps.
"""
COPY_START = 0.5
"""How strongly attention repeats what it looks at before it has learned anything else.

With it a default run ended 1.6 and 1.9 % above the floor on two seeds; from zero, 2.9 and 7.8 %.
"""


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> None:
    """Draw every weight from the seed, on the CPU, so that all devices start alike.

    Matrices are uniform with variance 1/inputs. Feed-forward parts start at zero, and add theirs
    only as they learn. Attention starts as a copier: its output matrix is half the transpose of its
    value matrix, so what a position looks at is written back as it was read, and to repeat a name
    the network has only to learn where to look. Embeddings are normal with a small deviation, so
    that tied logits start near zero and the loss near ln V.

    One weight after the other is drawn whole; where they are divided among processes each keeps its
    rows.
    """
    generator = torch.Generator().manual_seed(seed)
    queries_per_key = model.shape.num_attention_heads // model.shape.num_key_value_heads
    values = torch.empty(0)
    for name, weight in resting_weights(model):
        if not name.startswith(("model.", "lm_head.")):
            continue  # a head with labels begins as it was built
        first = torch.empty(whole_shape(weight), dtype=torch.float32)
        if name.endswith("down_proj.weight"):
            first.zero_()
        elif name.endswith("o_proj.weight"):
            first = _copier(values, model.shape.head_dim, queries_per_key)
        elif name.startswith(("model.embed_tokens", "lm_head")):
            first.normal_(0.0, EMBEDDING_STD, generator=generator)
        elif weight.ndim == 2:
            bound = math.sqrt(3.0 / first.shape[1])
            if not model.shape.qk_norm and name.endswith(("q_proj.weight", "k_proj.weight")):
                bound *= QK_START
            first.uniform_(-bound, bound, generator=generator)
        else:
            first.fill_(QK_NORM_START if name.endswith(("q_norm.weight", "k_norm.weight")) else 1.0)
        if name.endswith("v_proj.weight"):
            values = first  # of the same layer's output matrix, which comes next
        fill(weight, first)


def _copier(values: Tensor, head_dim: int, queries_per_key: int) -> Tensor:
    """Return the output matrix (D, H·K) that undoes a value matrix, shared by its query heads."""
    heads = values.view(-1, head_dim, values.shape[1]).repeat_interleave(queries_per_key, dim=0)
    return heads.flatten(0, 1).T * (COPY_START / queries_per_key)
