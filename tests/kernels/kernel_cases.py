"""The GPU's row kernel against the CPU's own rows: by Triton's interpreter, or on a GPU.

Run by test_triton.py in a process of its own, for the interpreter must be chosen before
Triton is imported, and torch.compile imports it. tests/gpu runs the same cases on the hardware.
"""

import os

import pytest
import torch

from nextword.kernels import loss_rows, loss_rows_triton
from nextword.kernels.loss_options import RowOptions
from nextword.kernels.loss_rows import Scratch, finish_rows

ALL = RowOptions(label_smoothing=0.1, z_loss=1e-2, softcap=5.0)
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("options", "width"),
    [
        *((RowOptions(), width) for width in (1, 97, 4096, 5003)),
        (RowOptions(label_smoothing=0.1), 5003),
        (RowOptions(z_loss=1e-2), 5003),
        (RowOptions(softcap=3.0), 5003),
        *((ALL, width) for width in (1, 97, 4096, 5003)),
    ],
)
def test_the_kernel_does_what_rows_do(width, with_bias, kind, options):
    generator = torch.Generator().manual_seed(0)
    # A cap makes logits far above it equal, and which of equals is the favorite is not defined.
    offset = 0 if options.softcap else 50
    logits = 4 * torch.randn(3, width, generator=generator) + offset
    targets = torch.randint(0, width, (3,), generator=generator)
    bias = torch.randn(width, generator=generator) if with_bias else None
    logits = logits.to(kind)
    if width > 5000:
        logits[0, :4096] = -float("inf")  # a first block without anything
    there = [None if one is None else one.to(DEVICE) for one in (targets, bias)]
    values = tuple(torch.zeros(3, 1, device=DEVICE) for _ in range(5))
    written = logits.to(DEVICE, copy=True)
    loss_rows_triton.launch(written, *there, options, values, write=True)
    space = Scratch(3, width, kind, torch.float32, torch.device("cpu"))
    expected = logits.clone()
    finished = finish_rows(expected, targets, bias, options, space, gradients=True, statistics=True)
    loose = {"rtol": 1e-4, "atol": 1e-4, "equal_nan": False}
    # One bfloat16 may be rounded up by one and down by the other.
    wide = loose if kind == torch.float32 else {**loose, "rtol": 2**-7}
    torch.testing.assert_close(written.cpu(), expected, **wide)
    found = loss_rows._finish(values, options)
    for one, two in zip([*found[:4], *found.rows], [*finished[:4], *finished.rows], strict=True):
        torch.testing.assert_close(one.cpu(), two, **loose)
    untouched = logits.to(DEVICE, copy=True)
    loss_rows_triton.launch(untouched, *there, options, values, write=False)
    assert torch.equal(untouched.cpu(), logits)
