"""How the layers of a run are computed while it trains: compiled or not, keeping all or less.

Both are told by the settings, and where they leave it open, by what the run will do: compiling
takes so long that a short run never earns it back; keeping less takes a third more work, which
is paid where nothing else lets a step fit into memory.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nextword.base.errors import SettingsError, is_out_of_memory
from nextword.base.signals import Broken
from nextword.machine.device import Machine
from nextword.machine.options import MachineSettings
from nextword.machine.parts import is_divided
from nextword.model.runner import (
    LayerRunner,
    as_it_stands,
    as_written,
    compile_within,
    compiled,
    keeping_less,
    within,
)
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.training.loop import Plan
from nextword.training.step import add_gradients

EAGER_FLOPS = 1.5e14
"""Of a GPU, a second, by layers as they stand: 14 % of an H200's 989 TFLOP/s were measured."""
SECONDS_A_LAYER = 2e-3
"""Of forward, backward and update, below which no layer comes however small it is: the time in
which its hundred kernels are launched."""
WORTH_SECONDS = 120.0
"""Of a run as it stands, from which on compiling takes less time than it saves."""
COMPILES = ("cuda",)
"""Devices where compiling pays. A CPU has kernels that are written for it."""


def expected_seconds(shape: Shape, plan: Plan) -> float:
    """Foresee what a run takes on a GPU, roughly, with layers as they stand."""
    work = shape.flops_per_token() * plan.batch_tokens / EAGER_FLOPS
    parts = -(-plan.rows // plan.micro_rows)
    return plan.steps * max(work, parts * shape.num_hidden_layers * SECONDS_A_LAYER)


def compiles(settings: MachineSettings, device: torch.device, shape: Shape, plan: Plan) -> bool:
    """Whether a run's layers are compiled."""
    if settings.compile != "auto":
        return settings.compile == "on"
    return device.type in COMPILES and expected_seconds(shape, plan) >= WORTH_SECONDS


def even_rows(plan: Plan, groups: int) -> int:
    """Return the most rows at once that divide a process's share evenly: each shape is compiled.

    Args:
        plan: of the run.
        groups: processes, or groups of them, that read rows of their own.
    """
    share = plan.rows // groups
    return next(rows for rows in range(min(plan.micro_rows, share), 0, -1) if share % rows == 0)


def with_compiling(
    settings: MachineSettings,
    device: torch.device,
    shape: Shape,
    plan: Plan,
    groups: int,
    *,
    goes_on: bool,
) -> Plan:
    """Return a plan that says whether layers are compiled, with parts of one shape if they are.

    A run that goes on is compiled as it was, where this machine is one that compiles.
    """
    wanted = compiles(settings, device, shape, plan)
    if goes_on:
        return replace(plan, compiled=plan.compiled and (wanted or device.type in COMPILES))
    if not wanted:
        return plan
    return replace(plan, compiled=True, micro_rows=even_rows(plan, groups))


def arrange_layers(
    model: Transformer, device: torch.device, plan: Plan, *, lengths_vary: bool
) -> None:
    """Let a network's layers be computed as a plan says.

    Of divided ones what is compiled is the layer itself: its weights are gathered around that, one
    layer's while the one before is computed.

    Args:
        model: the network.
        device: where it is.
        plan: of the run.
        lengths_vary: whether rows and positions change from step to step.
    """
    layers = model.model.layers
    as_written(layers)
    runner = layer_runner(device, plan, lengths_vary=lengths_vary)
    if plan.compiled and is_divided(model):
        step = keeping_less(within, plan.recompute) if plan.recompute != "none" else within
        compile_within(layers, step, lengths_vary=lengths_vary)
        runner = LayerRunner(blocks=runner is not None and runner.blocks, is_compiled=True)
    model.model.runner = runner


def layer_runner(device: torch.device, plan: Plan, *, lengths_vary: bool) -> LayerRunner | None:
    """Return what computes a run's layers; None where they are computed as they stand.

    Args:
        device: where the network is.
        plan: of the run.
        lengths_vary: whether rows and positions change from step to step.
    """
    less = plan.recompute != "none"
    step = keeping_less(as_it_stands, plan.recompute) if less else as_it_stands
    if plan.compiled:
        # FlexAttention has no backward pass on a CPU.
        made = compiled(step, lengths_vary=lengths_vary)
        return LayerRunner(made, device.type != "cpu", is_compiled=True)
    return LayerRunner(step) if less else None


def try_out(loss: nn.Module, batch: Iterable[Any], machine: Machine) -> Exception | None:
    """Compute a loss and its gradient once, and forget both; return the compiler's error, if any.

    Want of memory is none of the compiler's: the first step will tell.
    """
    try:
        add_gradients(loss, [batch], 1.0, machine.device)
        machine.synchronize()
    except Broken:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            return error
    finally:
        loss.zero_grad(set_to_none=True)
    return None


def first_line(error: BaseException | None) -> str:
    """Return what a compiler's error says, in a line; None stands for another process's."""
    if error is None:
        return "in another process"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}{f': {lines[0][:200]}' if lines else ''}"


def refuse_compiling(error: BaseException | None) -> SettingsError:
    """Say that layers could not be compiled, where that was asked for."""
    return SettingsError(
        f"machine.compile = 'on', but the layers cannot be compiled here ({first_line(error)}); "
        "--machine.compile off computes them as they stand"
    )
