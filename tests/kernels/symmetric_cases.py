"""Products of which one half is computed, against whole ones: by Triton's interpreter or on a GPU.

Run as kernel_cases.py is.
"""

import os

import pytest
import torch

from nextword.kernels import symmetric_triton
from nextword.kernels.symmetric_triton import product
from tests.training.test_muon import learned

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
NARROW = 5e-3 if DEVICE == "cpu" else 2.5e-3
"""Of bfloat16: the interpreter cuts numbers off where a GPU rounds them."""


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta", [None, 0.0, -4.75])
@pytest.mark.parametrize(("count", "rows", "columns"), [(2, 130, 70), (1, 256, 300), (3, 40, 1)])
def test_half_is_the_whole(count, rows, columns, beta, kind):
    source = torch.Generator().manual_seed(rows)
    x = torch.randn(count, rows, columns, generator=source).to(kind).to(DEVICE)
    added = torch.randn(count, rows, rows, generator=source)
    added = (added + added.mT).to(kind).to(DEVICE)
    found = product(x, None if beta is None else added, beta or 0.0, 2.0)
    exact = 2.0 * x.double() @ x.double().mT
    if beta is not None:
        exact += beta * added.double()
    assert found.equal(found.mT)
    assert found.dtype == kind
    error = (found.double() - exact).norm() / exact.norm()
    assert error < (1e-6 if kind == torch.float32 else NARROW)


def test_muon_learns_the_same_by_halves(monkeypatch):
    """On a GPU a hundred steps in bfloat16; the interpreter is slow, and takes few in float32."""
    calls = []

    def counted(*given):
        calls.append(1)
        return product(*given)

    monkeypatch.setattr(symmetric_triton, "BLOCK", 16)
    monkeypatch.setattr(symmetric_triton, "DEPTH", 16)
    steps, kind = (5, torch.float32) if DEVICE == "cpu" else (100, torch.bfloat16)
    halves = learned(monkeypatch, counted, kind, steps, DEVICE)
    assert len(calls) == steps * 5 * 2 * 2  # steps, iterations, products, shapes
    exact, plain = (learned(monkeypatch, None, one, steps, DEVICE) for one in (torch.float32, kind))
    rounding = float((plain - exact).norm() / exact.norm())
    apart = float((halves - exact).norm() / exact.norm())
    assert apart < (1e-4 if kind == torch.float32 else 1.5 * rounding)
