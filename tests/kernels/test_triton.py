"""The GPU's kernels through Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is for Linux")
@pytest.mark.parametrize(("cases", "passed"), [("kernel_cases.py", 44), ("symmetric_cases.py", 19)])
def test_the_kernels_do_what_plain_lines_do(cases, passed):
    file = Path(__file__).with_name(cases)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "xdist.plugin", str(file)],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=file.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{passed} passed" in done.stdout
