"""The verb as a process: started by its command, ended by signals, and what it says if it can't."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest


def start(shared, run, *options):
    command = [sys.executable, "-m", "nextword", "serve", run, "--port", "0", *options]
    return subprocess.Popen(
        command, cwd=shared.folder, env=shared.environment(), stderr=subprocess.PIPE, text=True
    )


def address_of(process):
    said = process.stderr.readline()
    address = re.search(r"http://\S+?(?=/v1)", said)
    assert address, said + process.stderr.read()
    return address.group()


@pytest.fixture
def served(shared, small_run):
    """A server in a process of its own."""
    process = start(shared, small_run, "--slots", "4")
    yield process, address_of(process)
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stderr.close()


def test_what_is_under_way_is_finished_when_it_is_asked_to_end(served):
    process, address = served
    body = {"prompt": "We are all", "max_tokens": 150, "stream": True, "logit_bias": {"0": -100}}
    parts, started = [], threading.Event()

    def read():
        with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=120) as answered:
            for line in answered.iter_lines():
                parts.append(line)
                started.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(60)
    process.send_signal(signal.SIGTERM)
    reader.join(60)
    assert parts[-2] == "data: [DONE]"
    assert process.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


@pytest.mark.parametrize("stream", [True, False])
def test_what_takes_longer_than_the_grace_is_cut_off_and_told_so(shared, small_run, stream):
    """A request that alone would take minutes."""
    process = start(shared, small_run, "--slots", "1", "--grace-seconds", "1")
    try:
        address = address_of(process)
        body = {"prompt": "We are all", "max_tokens": 150, "n": 128}
        body["logit_bias"] = {"0": -100}
        said = {}

        def ask():
            path = f"{address}/v1/completions"
            said["answer"] = httpx.post(path, json={**body, "stream": stream}, timeout=120)

        asking = threading.Thread(target=ask)
        asking.start()
        while 'nextword_writing{model="small"} 1' not in httpx.get(f"{address}/metrics").text:
            assert asking.is_alive()
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert process.wait(60) == 0
        assert "the server has ended; ask again" in said["answer"].text
        if stream:
            assert said["answer"].text.endswith("data: [DONE]\n\n")
        else:
            assert said["answer"].status_code == 503
            assert said["answer"].json()["error"]["code"] == "server_ended"
        log = process.stderr.read()
        assert "Traceback" not in log, log
        assert "Cancel" not in log, log
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


FAILING = """
import sys
from nextword.serve import app
async def fail(served, request):
    raise ValueError("planted")
app._model = fail
from nextword.cli.start import start
sys.argv = ["nextword", *sys.argv[1:]]
start()
"""


def test_a_mistake_s_path_reaches_the_log_as_signs(shared, small_run):
    """Nobody else quotes it: the server's own account of a mistake names the path."""
    process = subprocess.Popen(
        [sys.executable, "-c", FAILING, "serve", small_run, "--port", "0"],
        cwd=shared.folder, env=shared.environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = re.search(r"http://\S+?(?=/v1)", process.stderr.readline()).group()
        assert httpx.get(f"{address}/v1/models/%1b%5b2Jx", timeout=60).status_code == 500
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert "planted" in said
    assert "\x1b" not in said
    assert "␛[2Jx" in said


def test_control_characters_never_reach_the_log_raw(served):
    process, address = served
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(b"GET /\x1b[2Jx%1b%0a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        line.recv(1000)
    httpx.get(f"{address}/v1/models/%1b%5b2J%0anextline")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert "nextline" in said
    assert "\x1b" not in said
    assert "\nnextline" not in said


def test_a_second_server_names_a_free_port(served, shared, small_run):
    port = served[1].rsplit(":", 1)[1]
    done = shared.nextword("serve", small_run, "--port", port)
    assert done.returncode == 2
    assert re.search(r"cannot be listened on .*; --port \d+ is free", done.stderr)
    unknown = shared.nextword("serve", "nobody", "--port", port)  # the first mistake is the run's
    assert "no run 'nobody'" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "no run 'nobody'"),
        (["small", "--host", "0.0.0.0"], "--api-key"),
        (["small", "--slots", "0"], "at least 1"),
        (["small", "--port", "99999"], "at most"),
        (["small", "--no-such"], "no-such"),
    ],
)
def test_what_cannot_be_served_is_one_line(shared, small_run, arguments, words):
    done = shared.nextword("serve", *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_names_the_command(shared, small_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = shared.nextword("serve", small_run)
    assert done.returncode == 2
    assert "pip install 'nextword[serve]'" in done.stderr


def test_memory_does_not_grow(served):
    process, address = served

    def resident():
        with open(f"/proc/{process.pid}/statm") as pages:
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(count):
        with httpx.Client(timeout=120) as client:
            for number in range(count):
                body = {"prompt": f"The {number}", "max_tokens": 4, "logprobs": 2, "echo": True}
                assert client.post(f"{address}/v1/completions", json=body).status_code == 200

    ask(60)
    before = resident()
    ask(150)
    assert resident() - before < 20e6


HELPERS = """
import os, time, torch
from nextword.serve.start import apart
torch.set_num_threads(2)
def helpers(): return len(os.listdir("/proc/self/task")) - before
def work(): return {"it": torch.ones(2000, 2000).exp()}
before = len(os.listdir("/proc/self/task"))
apart(work)
until = time.monotonic() + 10
while helpers() and time.monotonic() < until: time.sleep(0.01)
ended = helpers()
work()
print(ended, helpers())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="helpers are libgomp's")
def test_what_computed_apart_leaves_no_helpers():
    """libgomp's, which would slow an engine's own down; the main thread's stay."""
    done = subprocess.run(
        [sys.executable, "-c", HELPERS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "1"]


def test_models_that_cannot_be_opened_are_named():
    from nextword.base.errors import RunError
    from nextword.serve.start import apart

    def failing():
        raise RunError("it: no such run")

    assert apart(lambda: {"it": 1}) == {"it": 1}
    with pytest.raises(RunError, match="it: no such run"):
        apart(failing)
