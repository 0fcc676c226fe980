"""The document that describes the endpoint, and what schemathesis makes of it: never a 500."""

import json
import re
import subprocess
import sys
from pathlib import Path

CALLS = 120
"""Each kind of question is asked so often here; `python -m tests.serve.calls` asks 10,000."""


def test_the_document_names_every_path(server):
    told = server.get("/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize"):
        body = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        name = body["$ref"].rsplit("/", 1)[1]
        assert told["components"]["schemas"][name]["properties"]
    assert "$ref" in json.dumps(told)


def test_the_document_names_what_is_answered_and_nothing_else(server):
    from nextword.serve.app import Served, build
    from nextword.serve.options import ServeSettings

    doors = build(Served({}, ServeSettings())).routes
    answered = {
        (route.path.replace(":path", ""), method.lower())
        for route in doors
        for method in route.methods - {"HEAD", "OPTIONS"}
    }
    told = server.get("/openapi.json").json()["paths"]
    assert {(path, method) for path, methods in told.items() for method in methods} == answered


def test_no_call_ends_in_a_mistake_of_the_servers_own(small_place):
    command = [sys.executable, "-m", "tests.serve.calls", small_place, "--calls", str(CALLS)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b0 of them", done.stdout)
    total = int(re.search(r"(\d+) calls in", done.stdout)[1])
    assert total >= CALLS
