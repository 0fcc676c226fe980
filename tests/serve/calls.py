"""Ask a server whatever its description allows, and more: no answer may be a 500.

    python -m tests.serve.calls RUN [--calls 10000] [--keep FILE]

schemathesis makes the questions from /openapi.json, right ones and wrong ones. Each answer must be
of a status that the document names, errors of OpenAI's shape.
"""

import argparse
import collections
import contextlib
import importlib.metadata
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
import torch
from hypothesis import HealthCheck
from schemathesis import GenerationMode

from tests.serve.conftest import running


def calls(server: Any, number: int) -> collections.Counter:
    """Ask so many questions of all kinds together; count the answers by path and status."""
    found: collections.Counter = collections.Counter()
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    operations = [one.ok() for one in schema.get_all_operations()]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    kinds = [(operation, mode) for operation in operations for mode in modes]
    # Of some there are few questions; what they leave over is shared among the others.
    for turn in itertools.count():
        each = -(-(number - found.total()) // max(len(kinds), 1))
        if each <= 0 or not kinds:
            return found
        asked = [(kind, _ask(*kind, each, turn)) for kind in kinds]
        for _, answers in asked:
            found += answers
        kinds = [kind for kind, answers in asked if 2 * answers.total() >= each]
    return found


def _ask(operation: Any, mode: GenerationMode, number: int, turn: int) -> collections.Counter:
    found: collections.Counter = collections.Counter()
    known = set(operation.definition.raw["responses"])

    @hypothesis.seed(random.Random(f"{operation.path} {mode} {turn}").randrange(1 << 30))
    @hypothesis.settings(
        max_examples=number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and mode.is_positive:  # short: the server is asked much
            case.body.update({key: 3 for key in ("max_tokens", "n") if key in case.body})
        answered = case.call()
        found[f"{operation.method.upper()} {operation.path}", answered.status_code] += 1
        assert answered.status_code < 500, (case.as_curl_command(), answered.text)
        assert str(answered.status_code) in known, (answered.status_code, case.as_curl_command())
        if answered.status_code >= 400 and answered.content:
            assert set(answered.json()["error"]) == {"message", "type", "param", "code"}

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing wrong can be asked of it
        ask()
    return found


def main() -> None:
    """Ask, and print what was answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="a file for the counts, as JSON")
    given = parser.parse_args()
    began = time.monotonic()
    with running(given.run) as server:
        torch.set_flush_denormal(False)  # hypothesis wants the smallest numbers
        found = calls(server, given.calls)
    for (what, status), count in sorted(found.items()):
        print(f"{what:<28}{status}  {count}")
    wrong = sum(count for (_, status), count in found.items() if status >= 500)
    total = sum(found.values())
    print(f"{total} calls in {time.monotonic() - began:.0f} s, {wrong} of them ended in a 500")
    if given.keep:
        names = ("nextword", "schemathesis", "hypothesis", "starlette", "uvicorn")
        kept = {
            "date": time.strftime("%Y-%m-%d"),
            "versions": {name: importlib.metadata.version(name) for name in names},
            "calls": total,
            "ended_in_a_500": wrong,
            "answers": {
                f"{what} {status}": count for (what, status), count in sorted(found.items())
            },
        }
        given.keep.write_text(json.dumps(kept, indent=2) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
