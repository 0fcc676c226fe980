"""Where the page is opened: ports that are taken, no browser, a run that another version wrote."""

import json
import re
import socket
import threading

import httpx
import pytest

from nextword.training.changes import other_writer
from nextword.watch import start
from nextword.watch.app import describe
from nextword.watch.series import Series


def test_a_port_in_use_is_one_line_that_names_the_next(place, run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = place.nextword("watch", "small", "--port", str(port))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use)" in line
    assert re.search(r"--port \d+ is free$", line)


@pytest.fixture(autouse=True)
def _in_no_haste(monkeypatch):
    """The page lets training come first; these tests' process goes on as it is."""
    monkeypatch.setattr("os.nice", lambda by: by)


def watched(run, *, opens):
    """Serve the page until it has answered once; return what was said."""
    said, until, there = [], threading.Event(), threading.Event()

    def say(line):
        said.append(line)
        there.set()

    asked = {"opens": opens, "say": say, "until": until}
    serving = threading.Thread(target=start.watch_run, args=(str(run), 0), kwargs=asked)
    serving.start()
    try:
        assert there.wait(60)
    finally:
        until.set()
        serving.join(60)
    return said


def test_where_there_is_no_browser_the_address_is_said(run, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    address, told = watched(run, opens=True)
    assert address.startswith("small: http://127.0.0.1:")
    assert told == f"no browser was found; open {address.split()[1]} in one"
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    (address,) = watched(run, opens=True)
    assert opened == [address.split()[1]]
    (address,) = watched(run, opens=False)
    assert opened != [address.split()[1]]
    with pytest.raises(httpx.ConnectError):
        httpx.get(address.split()[1])


def test_a_run_of_another_version_says_so(run):
    file = run / "run.json"
    facts = json.loads(file.read_text("utf-8"))
    assert other_writer(facts) is None
    assert describe(run, Series(run))["writer"] is None
    facts["versions"]["nextword"] = "0.0.7"
    file.write_text(json.dumps(facts), "utf-8")
    assert describe(run, Series(run))["writer"] == "0.0.7"
    said = watched(run, opens=False)
    assert said[0] == "small: written by nextword 0.0.7; this is 0.1.0"
