"""Train a language model to predict the next word from nothing but text, and watch it learn.

`nextword.train(...)` trains, `nextword.load(...)` opens what was trained. The parts (layers, loss,
optimizers, BPE, checkpoints) are usable on their own in any PyTorch program.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextword.api import train
    from nextword.language_model import Model, compare, load
    from nextword.loss.cross_entropy import cross_entropy
    from nextword.loss.linear import linear_cross_entropy
    from nextword.model.attention import Attention, KeyValueCache, attention
    from nextword.model.initialize import initialize
    from nextword.model.layers import FeedForward, Linear, RMSNorm, apply_rotary, rotary_tables
    from nextword.model.shape import Shape
    from nextword.model.transformer import Block, Transformer
    from nextword.targets.batch import batch_of
    from nextword.training.gradients import clip_gradients
    from nextword.training.module_state import load_checkpoint, save_checkpoint
    from nextword.training.optimizers import optimizers_for
    from nextword.training.optimizers.muon import Muon
    from nextword.training.schedule import cosine_rate
    from nextword.vocabulary.bpe import bpe_from, merges_of, train_bpe
    from nextword.vocabulary.cuts import encode_stream
    from nextword.vocabulary.tokenizer import Vocabulary

_PLACES = {
    "Attention": "model.attention",
    "Block": "model.transformer",
    "FeedForward": "model.layers",
    "KeyValueCache": "model.attention",
    "Linear": "model.layers",
    "Model": "language_model",
    "Muon": "training.optimizers.muon",
    "RMSNorm": "model.layers",
    "Shape": "model.shape",
    "Transformer": "model.transformer",
    "Vocabulary": "vocabulary.tokenizer",
    "apply_rotary": "model.layers",
    "attention": "model.attention",
    "batch_of": "targets.batch",
    "bpe_from": "vocabulary.bpe",
    "clip_gradients": "training.gradients",
    "compare": "language_model",
    "cosine_rate": "training.schedule",
    "cross_entropy": "loss.cross_entropy",
    "encode_stream": "vocabulary.cuts",
    "initialize": "model.initialize",
    "linear_cross_entropy": "loss.linear",
    "load": "language_model",
    "load_checkpoint": "training.module_state",
    "merges_of": "vocabulary.bpe",
    "optimizers_for": "training.optimizers",
    "rotary_tables": "model.layers",
    "save_checkpoint": "training.module_state",
    "train": "api",
    "train_bpe": "vocabulary.bpe",
}
"""Where each public name is defined; it is imported when it is first used."""
__all__ = [
    "Attention",
    "Block",
    "FeedForward",
    "KeyValueCache",
    "Linear",
    "Model",
    "Muon",
    "RMSNorm",
    "Shape",
    "Transformer",
    "Vocabulary",
    "apply_rotary",
    "attention",
    "batch_of",
    "bpe_from",
    "clip_gradients",
    "compare",
    "cosine_rate",
    "cross_entropy",
    "encode_stream",
    "initialize",
    "linear_cross_entropy",
    "load",
    "load_checkpoint",
    "merges_of",
    "optimizers_for",
    "rotary_tables",
    "save_checkpoint",
    "train",
    "train_bpe",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name only when it is used: importing nextword imports no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'nextword' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nextword.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, for completion in a notebook."""
    return sorted({*globals(), *__all__})
