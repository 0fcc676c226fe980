"""docs/serve.md: its commands are given to a server, as they stand there."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import httpx

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
THERE = "http://127.0.0.1:8000"


def test_the_python_runs(server):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    code = block.replace(THERE, server.address).replace("stories-1", "small")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "docs/serve.md", "exec"), {})
    assert len(said.getvalue()) > 20


def test_the_lines_of_the_shell_are_answered(server):
    lines = re.findall(r"^\$ curl (.*)$", PAGE, re.M)
    assert len(lines) == 6
    for line in lines:
        words = shlex.split(line)
        (address,) = (word for word in words if word.startswith(THERE))
        given = words[words.index("-d") + 1] if "-d" in words else None
        address = address.replace(THERE, server.address)
        if given is None:
            answered = httpx.get(address, timeout=60)
        else:
            headers = dict([words[words.index("-H") + 1].split(": ")])
            answered = httpx.post(address, content=given, headers=headers, timeout=60)
        assert answered.status_code == 200, line
        if "logprobs" in (given or ""):
            assert json.loads(answered.text)["choices"][0]["logprobs"]["token_logprobs"][0] is None


def test_every_path_is_in_the_table(server):
    for path in server.get("/openapi.json").json()["paths"]:
        assert f"`{path.partition('/{')[0]}`" in PAGE
