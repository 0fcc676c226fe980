"""Checkpoints of any `nn.Module` and its optimizers, as safetensors, for loops of one's own.

model/NAME          the module's state
optimizer-N/…       the N-th optimizer's: tensors by their path, the rest as JSON
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nextword.base.errors import RunError
from nextword.base.files import publish

_FORMAT = "nextword module state 1"


def save_checkpoint(
    file: str | Path,
    model: nn.Module,
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] = (),
    **values: Any,
) -> None:
    """Write a module, its optimizers and some values into one file, atomically.

    Args:
        file: is replaced where it exists.
        model: any module.
        optimizers: one or several.
        **values: what JSON can hold, as the step.

    Raises:
        RunError: a value is nothing that JSON can hold, or the file cannot be written.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise RunError(f"{file}: {name} is no tensor; state of a module's own is not kept")
    states: list[Any] = []
    for number, optimizer in enumerate(_several(optimizers)):
        states.append(_take_out(optimizer.state_dict(), f"optimizer-{number}", tensors))
    try:
        told = json.dumps({"format": _FORMAT, "optimizers": states, "values": values})
    except (TypeError, ValueError) as error:
        raise RunError(f"{file}: a checkpoint holds tensors and plain values ({error})") from None
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    final = Path(file)
    aside = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        save_file(kept, aside, metadata={"nextword": told})
        publish(aside, final)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file}: cannot be written ({error})") from None
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(
    file: str | Path,
    model: nn.Module,
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] = (),
) -> dict[str, Any]:
    """Give a module and its optimizers the state that `save_checkpoint` wrote; return the values.

    Args:
        file: written by `save_checkpoint`.
        model: with the same parameters.
        optimizers: as many as were saved, of the same kinds; or none, to take the weights alone.

    Raises:
        RunError: the file is missing, damaged or of another module; nothing is changed then.
    """
    try:
        with safe_open(file, "pt") as opened:
            told = json.loads((opened.metadata() or {})["nextword"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if told["format"] != _FORMAT:
            raise KeyError(told["format"])
    except FileNotFoundError:
        raise RunError(f"{file}: no such checkpoint") from None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(f"{file}: no checkpoint of `save_checkpoint` ({error})") from None
    given = _several(optimizers)
    if given and len(given) != len(told["optimizers"]):
        raise RunError(
            f"{file}: holds {len(told['optimizers'])} optimizers, and {len(given)} were given"
        )
    weights = {name[6:]: value for name, value in tensors.items() if name.startswith("model/")}
    _check(file, model, weights)
    states = [_put_in(state, tensors) for state in told["optimizers"]]
    for number, (optimizer, state) in enumerate(zip(given, states, strict=False), start=1):
        sizes = [
            [len(group["params"]) for group in one["param_groups"]]
            for one in (optimizer.state_dict(), state)
        ]
        if sizes[0] != sizes[1]:
            raise RunError(
                f"{file}: optimizer {number} holds groups of {sizes[1]} parameters there and of "
                f"{sizes[0]} here"
            )
    for optimizer, state in zip(given, states, strict=False):
        optimizer.load_state_dict(state)
    model.load_state_dict(weights)
    values: dict[str, Any] = told["values"]
    return values


def _several(
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
) -> Sequence[torch.optim.Optimizer]:
    return [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else optimizers


def _check(file: str | Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    expected = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            here, there = (
                tuple(one[name]) if name in one else "missing" for one in (expected, found)
            )
            raise RunError(f"{file}: {name} is {there} there and {here} in this module")


def _take_out(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Return plain values, with each tensor's name where it stood."""
    if isinstance(value, Tensor):
        tensors[place] = value
        return {"tensor": place}
    if isinstance(value, Mapping):
        entries = [[key, _take_out(one, f"{place}/{key}", tensors)] for key, one in value.items()]
        return {"entries": entries}
    if isinstance(value, (list, tuple)):
        parts = [_take_out(one, f"{place}/{n}", tensors) for n, one in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return {"value": value}


def _put_in(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Undo `_take_out`."""
    ((kind, value),) = told.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "entries":
        return {key: _put_in(one, tensors) for key, one in value}
    if kind in ("list", "tuple"):
        parts = [_put_in(one, tensors) for one in value]
        return tuple(parts) if kind == "tuple" else parts
    return getattr(torch, value) if kind == "dtype" else value
