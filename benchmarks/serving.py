"""Serving: many clients beside one at a time, and beside `transformers serve`, by the same script.

    python benchmarks/serving.py [--minutes 10] [--clients 64] [--peer COMMAND | --llama]
    python benchmarks/serving.py --rounds 0          (the last part alone; the rest stays as it was)

A network of ten million parameters, trained for one step, in a model folder that both serve on a
CPU. Clients are asyncio sockets in a process of their own; each asks for 64 tokens after some 40,
streamed, again and again. Tokens a second are those that the server's usage counts; the time to the
first token is the client's. The last part lets all clients ask for some minutes: nothing may fail,
and the server's memory may not grow. COMMAND starts the peer, `{folder}` and `{port}` filled in.
With --llama the peer is llama.cpp's own server on the GGUF of the same network, float32 on both
sides, and no last part (serving_beside_llama.json).
"""

import argparse
import asyncio
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from nextword.export.gguf import write_gguf
from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.prediction.loading import open_model

TOKENS, WORDS = 64, 24
TRAIN = (
    "train", "--name", "served", "--corpus.builtin", "python",
    "--model.depth", "6", "--model.hidden-size", "384", "--model.context", "512",
    "--vocabulary.size", "4096", "--training.steps", "1", "--machine.device", "cpu", "--quiet",
)  # fmt: skip
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
VOCABULARY = "the a function returns value list of text when if name and class object file"


WORDS_CAME = re.compile(rb'"content": ?"[^"]')


async def ask(port, prompt, model, most=TOKENS):
    """Ask for an answer; return when it began, its first token's time, its end, and its tokens."""
    body = {
        "model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": most,
        "stream": True, "temperature": 1.0, "stream_options": {"include_usage": True},
    }  # fmt: skip
    raw = json.dumps(body).encode()
    began, first, tokens = time.perf_counter(), None, 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + raw)
    status = (await reader.readline()).decode()
    if " 200 " not in status:
        rest = await reader.read()
        raise RuntimeError(status + rest.decode(errors="replace")[:500])
    begun = last = b""
    # As little work as can be: line by line clients took a quarter of what both cores can do.
    while part := await reader.read(1 << 16):
        if b'{"error"' in part:
            raise RuntimeError(part.decode(errors="replace"))
        if first is None:
            begun += part
            first = time.perf_counter() if WORDS_CAME.search(begun) else None
        last = (last + part)[-4096:]
    for found in re.finditer(rb'"completion_tokens": ?(\d+)', last):
        tokens = int(found[1])
    writer.close()
    return began, first or time.perf_counter(), time.perf_counter(), tokens


async def load(port, clients, seconds, model, seed=0):
    """Let clients ask for so long; return what each call came to, and what failed."""
    until, done, failed = time.perf_counter() + seconds, [], []

    async def client(number):
        dice = random.Random(f"{seed} {number}")
        while time.perf_counter() < until:
            prompt = " ".join(dice.choice(VOCABULARY.split()) for _ in range(WORDS))
            try:
                done.append(await ask(port, prompt, model))
            except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
                failed.append(f"{type(error).__name__}: {error}"[:300])
                await asyncio.sleep(0.1)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return done, failed


def measured(done, failed):
    """Sum up what clients saw."""
    seconds = max(one[2] for one in done) - min(one[0] for one in done)
    waits = sorted(one[1] - one[0] for one in done)
    return {
        "answers": len(done),
        "failed": failed[:3] and len(failed),
        "tokens_a_second": round(sum(one[3] for one in done) / seconds, 1),
        "first_token_p50": round(waits[len(waits) // 2], 4),
        "first_token_p99": round(waits[int(len(waits) * 0.99)], 4),
        "first_token_p99_by_p50": round(waits[int(len(waits) * 0.99)] / waits[len(waits) // 2], 2),
    }


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def started(command, environment, port):
    """Start a server, and wait until it listens."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 - it ends with the process that writes it
    process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if process.poll() is not None:
            log.seek(0)
            raise SystemExit(f"{command}: ended: {log.read()[-2000:].decode(errors='replace')}")
        with socket.socket() as trial:
            if not trial.connect_ex(("127.0.0.1", port)):
                return process
        time.sleep(0.2)
    raise SystemExit(f"{command}: does not listen")


def resident(process):
    """Return the megabytes that a process holds."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def client_main(given):
    """Be the clients' process: print what they saw as JSON."""
    port, clients, seconds, model, seed = json.loads(given)
    found = asyncio.run(load(port, clients, seconds, model, seed))
    print(json.dumps(measured(*found)))


def clients_see(port, clients, seconds, model, seed=0):
    """Run the clients in a process of their own."""
    told = json.dumps([port, clients, seconds, model, seed])
    done = subprocess.run(
        [sys.executable, __file__, "--as-clients", told], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def make_folder(place):
    """Train the network for a step; return its model folder, with a chat template."""
    environment = {**os.environ, "NEXTWORD_RUNS": str(place / "runs")}
    subprocess.run([sys.executable, "-m", "nextword", *TRAIN], env=environment, check=True)
    (folder,) = (place / "runs" / "served" / "checkpoints").iterdir()
    model = place / "served"
    folder.rename(model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = TEMPLATE
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    for file in (model / "training").iterdir():
        file.unlink()
    (model / "training").rmdir()
    return model


def main():
    """Measure; write results/serving.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--peer", default="")
    parser.add_argument("--llama", action="store_true", help="llama.cpp's server is the peer")
    parser.add_argument("--as-clients", default="")
    given = parser.parse_args()
    if given.as_clients:
        client_main(given.as_clients)
        return
    name = "serving_beside_llama.json" if given.llama else "serving.json"
    file = Path(__file__).parent / "results" / name
    with tempfile.TemporaryDirectory() as root:
        if given.rounds:
            result = measure(Path(root), given)
        else:
            result = json.loads(file.read_text())
            result["long"] = soak(make_folder(Path(root)), given)
    text = json.dumps(result, indent=2)
    print(text)
    file.write_text(text + "\n")


def measure(place, given):
    """Serve and ask, both servers in turn."""
    folder = make_folder(place)
    commands = {"nextword": f"{sys.executable} -m nextword serve {{folder}} --port {{port}}"}
    if given.llama:
        given.peer, given.minutes = llama_command(folder, given.clients), 0
    if given.peer:
        commands["peer"] = given.peer
    rows, loads = {}, []
    for _ in range(given.rounds):
        for name, command in commands.items():
            port = free_port()
            words = command.format(folder=folder, port=port).split()
            process = started(words, os.environ.copy(), port)
            model = "served" if name == "nextword" else str(folder)
            try:
                clients_see(port, 2, 2, model)  # what is made at the first call is made
                for clients in (1, given.clients):
                    loads.append(round(os.getloadavg()[0], 2))
                    found = clients_see(port, clients, given.seconds, model)
                    rows.setdefault(f"{name}, {clients} at once", []).append(found)
            finally:
                process.terminate()
                process.wait()
    long = soak(folder, given) if given.minutes else None
    ours = [row["tokens_a_second"] for row in rows["nextword, 1 at once"]]
    many = [row["tokens_a_second"] for row in rows[f"nextword, {given.clients} at once"]]
    ratios = {"many_by_one": spread(many, ours)}
    if given.peer:
        peer = [row["tokens_a_second"] for row in rows[f"peer, {given.clients} at once"]]
        ratios["many_by_peer"] = spread(many, peer)
    shape = json.loads((folder / "config.json").read_text())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": choose_machine(MachineSettings(device="cpu")).describe(),
        "torch": torch.__version__,
        "peer": "llama.cpp's server, float32" if given.llama else re.sub(r"^\S*/", "", given.peer),
        "load_averages": loads,
        "network": {key: shape[key] for key in ("num_hidden_layers", "hidden_size", "vocab_size")},
        "tokens_asked_for": TOKENS,
        **ratios,
        "rounds": rows,
        "long": long,
    }


def llama_command(folder, slots):
    """Export the network in float32; return what serves it by llama.cpp."""
    file = folder.with_suffix(".gguf")
    write_gguf(open_model(str(folder)), file, "f32")
    server = Path(__file__).with_name("llama_server.py")
    return f"{sys.executable} {server} {file} {{port}} {slots} 512"


def soak(folder, given):
    """Let all clients ask for minutes."""
    port, loads = free_port(), [round(one, 2) for one in os.getloadavg()]
    words = [sys.executable, "-m", "nextword", "serve", str(folder), "--port", str(port)]
    process = started(words, os.environ.copy(), port)
    try:
        clients_see(port, given.clients, 20, "served")
        before = resident(process)
        found = clients_see(port, given.clients, 60 * given.minutes, "served", 1)
        after = resident(process)
    finally:
        process.terminate()
        process.wait()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "load_before": loads,
        "minutes": given.minutes,
        "clients": given.clients,
        "megabytes_before": round(before, 1),
        "megabytes_after": round(after, 1),
        **found,
    }


def spread(ones, others):
    """Return median, least and most of the ratios of each round."""
    found = [one / other for one, other in zip(ones, others, strict=True)]
    return [round(value, 2) for value in (statistics.median(found), min(found), max(found))]


if __name__ == "__main__":
    main()
