"""Tables fit a terminal of eighty columns, and are as wide as they must be everywhere else."""

import re
import sys

import pytest

from tests.typed import typing

TEXT = "We are all humans born to make mistakes"
TABLES = {
    "ruler": (["ruler", "small"], r"[▒█]{2}"),
    "replay": (["replay", "small"], r"^(loss, nats|\s+step|\".*\d\.\d{4})"),
    "explain": (["explain", "small", TEXT], r"^\s*\d+  .*\d\.\d{4}"),
}


def lines_of(place, words, columns):
    command = [sys.executable, "-m", "nextword", *words]
    environment = {**place.environment(), "TERM": "dumb", "NO_COLOR": "1"}
    with typing(command, environment, place.folder, columns) as terminal:
        assert terminal.ends() == 0
        return terminal.shown.replace("\r", "").splitlines()


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("name", TABLES)
def test_tables_fit_a_terminal(place, run, name, columns):
    words, shape = TABLES[name]
    rows = [line for line in lines_of(place, words, columns) if re.search(shape, line)]
    assert len(rows) > 5
    widest = max(map(len, rows))
    piped = place.nextword(*words).stdout.splitlines()
    usual = max(len(line) for line in piped if re.search(shape, line))
    assert usual > 90  # a pipe gets all of it
    if columns == 200:
        assert widest == usual
    else:
        assert widest <= columns
