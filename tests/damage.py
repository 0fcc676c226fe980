"""Damage a file: bytes turned, cut, doubled; in JSON a value of another kind or beyond reason."""

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

HOSTILE = [
    None, True, False, 0, 1, -1, 2, 7, 1 << 16, 10**9, 1 << 31, 1 << 63, -(1 << 63), 10**30, 0.0,
    -0.5, 1e-300, 1e308, float("nan"), float("inf"), "", "x", "0", "\x1b[31m", "../../x",
    "/etc/passwd",
    "\ud800", "a" * 5000, [], [None], ["x"], [0], [[]], {}, {"x": 1}, {"": {}}, [1.5] * 100,
]  # fmt: skip


def damage(raw: bytes, structured: bool, dice: random.Random) -> bytes:
    """Damage a file's bytes, as JSON where it is some."""
    if structured and dice.random() < 0.8:
        with contextlib.suppress(ValueError):
            return _damage_json(raw, dice)
    return _damage_bytes(raw, dice)


def _damage_bytes(raw: bytes, dice: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        place = dice.randrange(len(changed) + 1) if dice.random() < 0.6 else dice.randrange(64)
        place = min(place, len(changed))
        size = dice.choice((1, 1, 2, 8, 100))
        how = dice.randrange(6)
        if how == 0 and place < len(changed):
            changed[place] ^= 1 << dice.randrange(8)
        elif how == 1:
            changed[place : place + size] = dice.randbytes(size)
        elif how == 2:
            del changed[place : place + size]
        elif how == 3:
            changed[place:place] = changed[place : place + size] * dice.choice((1, 3, 100))
        elif how == 4:
            changed[place:place] = dice.choice(_PARTS)
        else:
            del changed[dice.choice((0, place, len(changed) // 2)) :]
    return bytes(changed)


_PARTS = (
    b"\x00", b"\xff" * 8, b"\n", b"\n\n", b"[" * 20_000, b"{" * 20_000, b'{"a":' * 5000,
    b"9" * 6000, b"\x1b[2J", b"\xef\xbb\xbf", b"\r", b"-1", b"1e999", b'"', b"NaN", b"a.b." * 3000,
    b"\x80\x02}q\x00.",
)  # fmt: skip


def _damage_json(raw: bytes, dice: random.Random) -> bytes:
    try:
        lines: list[Any] = [json.loads(raw)]
        ends = b""
    except ValueError:
        lines = [json.loads(line) for line in raw.splitlines()]
        ends = b"\n"
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        number = dice.randrange(len(lines))
        places = [((), None), *places_in(lines[number])]
        path, key = dice.choice(places)
        if key is None:
            lines[number] = copy.deepcopy(dice.choice(HOSTILE))
            continue
        where = lines[number]
        for step in path:
            where = where[step]
        how = dice.randrange(5)
        if how == 0:
            del where[key]
        elif how == 1 and isinstance(where[key], int | float):
            it = where[key]
            where[key] = dice.choice((-it, it * 1000, it + 1, it / 2))
        elif how == 2 and isinstance(where[key], list | str) and where[key]:
            where[key] = where[key][:-1] if dice.random() < 0.5 else where[key] * 3
        else:
            where[key] = copy.deepcopy(dice.choice(HOSTILE))
    return ends.join(json.dumps(line).encode() for line in lines) + ends


def places_in(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Yield where every value within one stands."""
    if not isinstance(value, dict | list):
        return
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(inside)[:60]:
        yield path, key
        if isinstance(inner, dict | list) and len(path) < 6:
            yield from places_in(inner, (*path, key))
