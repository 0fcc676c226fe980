"""The README's commands are run, its options exist, and its times are the measured ones."""

import importlib.util
import json
import math
import re
import shlex
import subprocess
import sys
from functools import reduce
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BENCHMARKS = ROOT / "benchmarks"
TIME = r"((?:\d+|a|two|three|four|five|six|seven|eight|nine|ten) (?:s|min|seconds?|minutes?)\b)"
TIMES = {
    "README.md": (
        (rf"On two CPU cores that takes about {TIME}", "readme", ("train", "seconds")),
        (rf"\nabout {TIME} for \d+ steps more", "readme", ("train", "estimated_seconds")),
        (rf"\nDone in {TIME}\.", "readme", ("train", "training_seconds")),
        (rf"To run the tests \(about {TIME} on two cores", "readme", ("tests", "seconds")),
        *(
            (pattern, "tinyshakespeare", ("medians", which, "seconds"))
            for pattern, which in (
                (rf"after {TIME} on two cores, everything", "quick"),
                (rf"at 1.90 after {TIME}", "nanogpt"),
                (rf"With no option it goes on to 1.47 in {TIME}", "default"),
            )
        ),
    ),
    "CONTRIBUTING.md": (
        (rf'"not slow" +# the inner loop: about {TIME}', "readme", ("inner_loop", "seconds")),
        (rf"\n    pytest +# everything: about {TIME}", "readme", ("tests", "seconds")),
    ),
}
"""What a page says takes how long, and the result that it was read off."""
FACTOR = 1.5


DEAR = {"ruler", "report"}
"""Verbs that pack all of a run's text; a run with little text shows as well that they work."""


SERVERS = {"serve": "/v1/models", "watch": "/api/runs"}
"""Verbs that go on until they are ended, and a path that they answer."""


def commands():
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line for line in lines if line.startswith("nextword ")]


def test_the_commands_on_the_default_run_work(shared, default_run, small_run):
    asked = [line for line in commands() if shlex.split(line)[1] not in {"train", *SERVERS}]
    assert {shlex.split(line)[1] for line in asked} == {
        "generate", "predict", "evaluate", "targets", "vocabulary", "runs", "prepare",
        "explain", "attention", "audit", "replay", "ruler", "compress", "decompress", "report",
        "fill", "finetune", "classify", "compare", "export", "push", "track", "benchmark", "look",
        "--version",
    }  # fmt: skip
    text = "We are all humans born to make mistakes, and to learn from them.\n" * 200
    (shared.folder / "book.txt").write_text(text)
    names = ("Ada", "Adam", "Eva", "Fred", "Dora", "Leo", "Lily", "John", "Anna", "Frank")
    rows = "".join(f"{name} was a clerk.,{'ab'[n % 2]}\n" for n, name in enumerate(names))
    (shared.folder / "labels.csv").write_text(f"text,label\n{rows}")
    few = ("--training.steps", "4", "--corpus.stories", "400")
    masked = shared.nextword("train", "--objective", "masked", "--name", "both", *few)
    assert masked.returncode == 0, masked.stderr
    for line in asked:
        words = shlex.split(line)[1:]
        if words[0] == "benchmark" and importlib.util.find_spec("lm_eval") is None:
            continue  # of the extra `clients`, which .ci/run installs
        if words[0] in DEAR:
            words = [small_run if word == "stories-1" else word for word in words]
        done = shared.nextword(*words)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert (done.stderr if "finetune" in line else done.stdout).strip()


def test_the_servers_answer(shared, default_run):
    lines = [shlex.split(line) for line in commands() if shlex.split(line)[1] in SERVERS]
    assert {words[1] for words in lines} == set(SERVERS)
    for _, verb, *words in lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "nextword", verb, *words, "--port", "0"],
            cwd=shared.folder, env=shared.environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        said = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        try:
            assert address, said
            answered = httpx.get(address.group() + SERVERS[verb], timeout=60)
            assert "stories-1" in answered.text
        finally:
            process.terminate()
            process.communicate()


def test_the_parts_stand_alone_as_the_page_shows():
    pages = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    (alone,) = (page for page in pages if "train_bpe" in page)
    known = {}
    exec(compile(alone, str(README), "exec"), known)
    assert float(known["loss"].detach()) < 0.7 * math.log(270)


def test_the_training_commands_have_known_options():
    from nextword.settings import all_options

    known = {"--" + option.path.replace("_", "-") for option in all_options()}
    known |= {"--name", "--recipe", "--resume", "--quiet", "--json", "--objective", "--from"}
    known |= {"--minutes", "--dry-run"}
    asked = [line for line in commands() if line.startswith("nextword train")]
    assert len(asked) >= 3
    for line in asked:
        for word in shlex.split(line.split("#")[0]):
            assert not word.startswith("--") or word in known, line


@pytest.fixture(scope="module")
def seconds_of():
    spec = importlib.util.spec_from_file_location("readme_benchmark", BENCHMARKS / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.seconds_of


def wrong_times(page, text, seconds_of):
    """What a page says of times that are not those measured, and times that nothing measures."""
    wrong, rest = [], text
    for pattern, name, path in TIMES[page]:
        found = re.search(pattern, text)
        assert found, f"{page}: no longer says {pattern}"
        results = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))
        measured = reduce(lambda part, key: part[key], path, results)
        if not measured / FACTOR <= seconds_of(found[1]) <= measured * FACTOR:
            wrong.append(f"{found[0].strip()}: it was {measured} s")
        rest = rest.replace(found[0], "")
    prose = re.sub(r"```text\n.*?```", "", rest, flags=re.S)
    return wrong + [f"{one}: nothing measures it" for one in re.findall(rf"\b{TIME}", prose)]


@pytest.mark.parametrize("page", TIMES)
def test_times_are_within_a_factor_of_those_measured(page, seconds_of):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert wrong_times(page, text, seconds_of) == []


@pytest.mark.parametrize("page", TIMES)
def test_a_time_that_nobody_measured_is_found(page, seconds_of):
    text = (ROOT / page).read_text(encoding="utf-8")
    for pattern, _, _ in TIMES[page]:
        said = re.search(pattern, text)
        planted = said[0].replace(said[1], "1 s")
        assert len(wrong_times(page, text.replace(said[0], planted), seconds_of)) == 1
    assert wrong_times(page, f"{text}\nIt takes two minutes.\n", seconds_of) == [
        "two minutes: nothing measures it"
    ]


def test_times_in_words_are_understood(seconds_of):
    said = ("95 s", "2 min", "a minute", "two minutes", "six minutes", "80 seconds")
    assert [seconds_of(one) for one in said] == [95, 120, 60, 120, 360, 80]


def test_the_speed_of_compressing_is_the_one_measured():
    said = float(re.search(r"at about (\d+) kB/s each way", README.read_text("utf-8"))[1])
    results = json.loads((BENCHMARKS / "results" / "seeing.json").read_text(encoding="utf-8"))
    for way in ("compress", "decompress"):
        measured = results["kilobytes_per_second"][way]
        assert measured / FACTOR <= said <= measured * FACTOR
