"""The GPU's row kernel, run by Triton's interpreter on the CPU, against the CPU's own rows.

Run by test_rows_triton.py in a process of its own: the interpreter must be chosen before Triton is
imported, and torch.compile imports it.
"""

import pytest
import torch

from nextword.loss import rows_triton
from nextword.loss.rows import RowOptions, Scratch, finish_rows


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("width", [1, 97, 4096, 5003])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        RowOptions(),
        RowOptions(label_smoothing=0.1),
        RowOptions(z_loss=1e-2),
        RowOptions(softcap=3.0),
        RowOptions(label_smoothing=0.1, z_loss=1e-2, softcap=5.0),
    ],
)
def test_the_kernel_does_what_rows_do(width, with_bias, options):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, width, generator=generator) + 50
    targets = torch.randint(0, width, (3,), generator=generator)
    bias = torch.randn(width, generator=generator) if with_bias else None
    values = tuple(torch.zeros(3, 1) for _ in range(5))
    written = logits.clone()
    rows_triton.launch(written, targets, bias, options, values, write=True)
    space = Scratch(3, width, torch.float32, torch.float32, torch.device("cpu"))
    expected = logits.clone()
    finished = finish_rows(expected, targets, bias, options, space, gradients=True, statistics=True)
    torch.testing.assert_close(written, expected, rtol=1e-4, atol=1e-4)
    greatest, chosen, others, _, _ = values
    total = others + chosen.exp()
    torch.testing.assert_close((greatest + total.log())[:, 0], finished.rows.log_sum_exp)
    torch.testing.assert_close(
        (total.log() - values[4] / total)[:, 0], finished.rows.entropy, rtol=1e-4, atol=1e-5
    )
    untouched = logits.clone()
    rows_triton.launch(untouched, targets, bias, options, values, write=False)
    assert torch.equal(untouched, logits)
