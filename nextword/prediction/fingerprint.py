"""A fingerprint of all that a model's exact probabilities depend on: weights, hardware, versions.

A file is decoded only where all of it is the same.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from nextword.machine.device import Machine
from nextword.model.transformer import Transformer
from nextword.prediction.coder import TABLES, Spelling, Stepper, settled

_LETTERS = 16  # of torch's version that are kept to be read


class Fingerprint(NamedTuple):
    """All that the probabilities' last bits depend on, so that a file is never decoded wrong."""

    weights: bytes
    vocabulary: bytes
    processor: bytes
    arithmetic: bytes
    threads: int
    device: str
    torch: str


def fingerprint_of(
    model: Transformer, machine: Machine, spelling: Spelling, lanes: int
) -> Fingerprint:
    """Describe what computes here.

    Args:
        model: the network.
        machine: which it is on.
        spelling: of its vocabulary.
        lanes: tokens read side by side; the arithmetic is tried out in this shape.
    """
    asked = np.arange(lanes, dtype=np.int64) % model.shape.vocab_size
    with settled(model):
        stepper = Stepper(model, lanes, spelling.spells)
        answers = [model.model.get_buffer(name).cpu().numpy().tobytes() for name in TABLES]
        answers += [stepper.read(asked).numpy().tobytes() for _ in range(2)]
    instructions, products = _instructions(), torch.get_float32_matmul_precision()
    return Fingerprint(
        digest_of(_weights(model), size=8),
        digest_of([str(spelling.vocabulary.begin_id).encode(), *spelling.pieces]),
        digest_of([machine.describe()["name"].encode()]),
        digest_of([repr((instructions, products, torch.__version__)).encode(), *answers]),
        torch.get_num_threads(),
        model.device.type,
        torch.__version__[:_LETTERS],
    )


def differences(made: Fingerprint, here: Fingerprint) -> list[str]:
    """Say in which ways the maker of a file differs from what computes here."""
    reasons = []
    if made.weights != here.weights:
        reasons.append("made with other weights: another run or checkpoint")
    if made.vocabulary != here.vocabulary:
        reasons.append("made with another vocabulary")
    if made.threads != here.threads:
        reasons.append(
            f"made with {made.threads} threads, this is {here.threads}: "
            f"give --machine.threads {made.threads}"
        )
    if made.torch != here.torch:
        reasons.append(f"made with torch {made.torch}, this is {here.torch}: install that one")
    if made.device != here.device:
        reasons.append(
            f"made on {made.device}, this is {here.device}: give --machine.device {made.device}"
        )
    elif made.processor != here.processor:
        reasons.append("made on another processor, whose sums end in other bits")
    if not reasons and made.arithmetic != here.arithmetic:
        reasons.append(
            "made with other processor instructions or settings of arithmetic "
            f"(here torch uses {_instructions()})"
        )
    return reasons


def _instructions() -> str:
    return torch.backends.cpu.get_cpu_capability()


def digest_of(parts: Iterable[bytes], size: int = 4) -> bytes:
    """Digest byte strings, their lengths included."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _weights(model: Transformer) -> Iterator[bytes]:
    """Yield the network's sizes, and each weight with its name."""
    yield repr(model.shape).encode()
    for name, weight in sorted(model.named_parameters()):
        yield name.encode()
        yield weight.detach().cpu().contiguous().numpy().tobytes()
