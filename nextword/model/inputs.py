"""Input validation of the network: shapes, dtypes and ranges of token ids.

Where ids are outside the vocabulary a CPU's lookup names none of it, and a GPU's ends the process.
Looking at the values makes a GPU wait, so training on one does without; its ids come from shards
that are looked at as they are read.

Legend of shapes: B rows, T positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nextword.base.errors import ModelError
from nextword.model.attention import KeyValueCache, Seen


def check_ids(ids: Tensor, entries: int) -> None:
    """Refuse what is not (B, T) of ids below `entries`.

    Raises:
        ModelError: names what was given and what was expected.
    """
    if ids.ndim != 2 or not ids.shape[1]:
        raise ModelError(
            f"ids of shape {tuple(ids.shape)}: expected (rows, positions), at least one position"
        )
    if ids.dtype not in (torch.int64, torch.int32):
        raise ModelError(
            f"ids of {_kind(ids)}: expected whole numbers, int64 or int32, of shape "
            "(rows, positions)"
        )
    if _is_free_to_look(ids):
        least, most = (int(value) for value in torch.aminmax(ids))
        if least < 0 or most >= entries:
            wrong = least if least < 0 else most
            raise ModelError(f"id {wrong}: the network has entries 0 to {entries - 1}")


def check_room(ids: Tensor, start: int, room: int, cache: KeyValueCache | None) -> None:
    """Refuse more positions than are left, and another number of rows than the cache has.

    Raises:
        ModelError: names what was given and what was expected.
    """
    rows, positions = ids.shape
    if start + positions > room:
        after = f" after {start} in the cache" if start else ""
        raise ModelError(
            f"{positions} positions{after}: expected at most {room - start}, of a context of {room}"
        )
    if cache is not None and rows != cache.rows:
        raise ModelError(
            f"ids of shape {tuple(ids.shape)}: expected ({cache.rows}, positions), the rows of "
            "the cache"
        )


def check_companions(ids: Tensor, seen: "Seen | None", positions: Tensor | None) -> None:
    """Refuse what says who may look where, or who stands where, for other ids than these.

    Raises:
        ModelError: names what was given and what was expected.
    """
    rows, length = ids.shape
    if positions is not None and positions.shape != ids.shape:
        raise ModelError(
            f"positions of shape {tuple(positions.shape)}: expected {(rows, length)}, as ids have"
        )
    if isinstance(seen, Tensor) and not (
        seen.ndim == 4
        and seen.shape[0] in (1, rows)
        and seen.shape[1] == 1
        and seen.shape[2] in (1, length)
        and seen.shape[3] == length
    ):
        raise ModelError(
            f"seen of shape {tuple(seen.shape)}: expected {(rows, 1, length, length)}, "
            "or 1 for rows or for all who look"
        )


def check_lengths(ids: Tensor, lengths: Tensor) -> None:
    """Refuse lengths that are not one for each row, or not within it.

    Raises:
        ModelError: names what was given and what was expected.
    """
    rows, positions = ids.shape
    expected = f"expected ({rows},), from 1 to {positions}"
    if lengths.shape != (rows,):
        raise ModelError(f"lengths of shape {tuple(lengths.shape)}: {expected}")
    if _is_free_to_look(lengths):
        least, most = (int(value) for value in torch.aminmax(lengths))
        if least < 1 or most > positions:
            raise ModelError(f"a length of {least if least < 1 else most}: {expected}")


def check_next(ids: Sequence[int], entries: int, cache: KeyValueCache, context: int) -> None:
    """Refuse the next id of each row where it is no entry, or where a cache has no room for it.

    Raises:
        ModelError: names what was given and what was expected.
    """
    if len(ids) != cache.rows:
        raise ModelError(f"{len(ids)} ids: expected {cache.rows}, one for each row of the cache")
    for id_ in ids:
        if not 0 <= id_ < entries:
            raise ModelError(f"id {id_}: the network has entries 0 to {entries - 1}")
    room = min(cache.room, context)
    if cache.length >= room:
        raise ModelError(
            f"1 position after {cache.length} in the cache: expected at most 0, of a context of "
            f"{room}"
        )


def _is_free_to_look(values: Tensor) -> bool:
    """Whether there are values to look at, and looking holds nothing up that matters."""
    if torch.compiler.is_compiling() or values.is_meta or not values.numel():
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(values):
        return False
    return values.device.type == "cpu" or not torch.is_grad_enabled()


def _kind(ids: Tensor) -> str:
    return str(ids.dtype).removeprefix("torch.")
