"""Threads that wait do so asleep, so that several trainings share a machine."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "expected"), [(None, "1000"), ("7", "7")])
def test_it_is_said_before_torch_is_imported_and_only_where_nobody_has(given, expected):
    code = (
        "import os, sys\nfrom nextword.cli import main\n"
        "try: main(['runs'])\nexcept SystemExit: pass\n"
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    if given:
        environment["GOMP_SPINCOUNT"] = given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == expected
    early = code.replace("main(['runs'])", "main(['--help'])").replace(
        "os.environ['GOMP_SPINCOUNT']", "'torch' in sys.modules, os.environ['GOMP_SPINCOUNT']"
    )
    done = subprocess.run(
        [sys.executable, "-c", early], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"False {expected}"


def test_what_waits_beside_its_own_clients_looks_longer():
    code = (
        "import os, sys\nfrom nextword.cli import main\n"
        "try: main(['serve', '--help'])\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False 10000"
