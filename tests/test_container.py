"""Dockerfile and devcontainer name what is there; `python -m tests.container` builds them."""

import json
import re
import tomllib
from pathlib import Path

from tests.container import PROJECT, instructions, sent, stages

DOCKERFILE = (PROJECT / "Dockerfile").read_text()


def test_each_stage_stands_on_one_before_it():
    found = stages(DOCKERFILE)
    assert list(found) == ["python", "develop", "use"]
    assert all(of[0].rest.startswith("debian:") for of in found.values())
    words = {one.word for one in instructions(DOCKERFILE)}
    assert words <= {"FROM", "RUN", "ENV", "WORKDIR", "ARG", "COPY", "ENTRYPOINT", "CMD"}
    assert found["use"][-1].rest == '["--help"]'


def test_what_is_sent_to_a_build_is_what_a_wheel_is_made_of():
    files = {str(file) for file in sent()}
    described = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wheel = described["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["shared-data"]) <= files
    assert {"README.md", "LICENSE", "pyproject.toml", "nextword/__init__.py"} <= files
    assert not [file for file in files if file.startswith(("tests/", "benchmarks/"))]


def test_the_extras_that_it_installs_exist():
    described = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert set(extras.split(",")) <= set(described["project"]["optional-dependencies"])


def test_the_devcontainer_begins_with_a_stage_and_installs_what_the_readme_says():
    place = PROJECT / ".devcontainer"
    told = json.loads((place / "devcontainer.json").read_text())
    assert (place / told["build"]["dockerfile"]).resolve() == PROJECT / "Dockerfile"
    assert told["build"]["target"] in stages(DOCKERFILE)
    assert f"$ {told['postCreateCommand']} && pytest" in Path(PROJECT, "README.md").read_text()
