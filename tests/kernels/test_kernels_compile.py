"""Every Triton kernel through Triton's own compiler, ahead of time, for GPUs that are not here.

The interpreter, which `kernel_cases.py` uses, runs a kernel as Python and takes what the compiler
refuses. Compiling needs no GPU. What the machine code then computes is asked by tests/gpu.
"""

import ast
import importlib
import inspect
import itertools
from importlib.util import find_spec
from pathlib import Path

import pytest

import nextword

pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="Triton is for Linux"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
    pytest.mark.filterwarnings("ignore:AnnAssign.__init__:DeprecationWarning"),  # 3.7 on 3.13
]

PACKAGE = Path(nextword.__file__).parent
WHOLE, NUMBER = "i32", "fp32"
# What a kernel is launched with: the types of its arguments, and its switches. {kind} is the
# logits' type; whatever is not named is a pointer to float32.
KERNELS = {
    "kernels/loss_rows_triton.py:_row": {
        "arguments": {
            "logits": "*{kind}",
            "bias": "*{kind}",
            "targets": "*i64",
            **dict.fromkeys(("stride", "width"), WHOLE),
            **dict.fromkeys(("softcap", "smoothing", "z_loss"), NUMBER),
        },
        "switches": ("HAS_BIAS", "HAS_CAP", "WRITE"),
        "constants": {"SIZE": 4096},
        "options": {"num_warps": 8, "enable_fp_fusion": False},
    },
    "kernels/symmetric_triton.py:_half": {
        "arguments": {
            **dict.fromkeys(("x", "added", "out"), "*{kind}"),
            **dict.fromkeys(("rows", "columns"), WHOLE),
            **dict.fromkeys(("beta", "alpha"), NUMBER),
        },
        "switches": ("HAS_ADDED",),
        "constants": {"SIDE": 128, "STEP": 32, "WIDE": False},
        "options": {"num_warps": 8, "num_stages": 3},
    },
}
CAPABILITIES = (80, 90, 100)
AMD = "gfx942"
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10, AMD: 64 << 10}
"""Bytes that a block may share, by NVIDIA's and AMD's tables; more is refused at its launch."""


def modules():
    return sorted(PACKAGE.rglob("*_triton.py"))


def kernels_of(file):
    """Return a file's jitted functions that no other of its jitted functions calls."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts))
    from triton.runtime.jit import JITFunction

    found = {name: it for name, it in vars(module).items() if isinstance(it, JITFunction)}
    called = {
        node.func.id
        for it in found.values()
        for node in ast.walk(ast.parse(inspect.cleandoc(inspect.getsource(it.fn))))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return {name: it for name, it in found.items() if name not in called}


def compile_for(kernel, known, kind, switches, target):
    import triton
    from triton.compiler import ASTSource

    constants = known["constants"] | dict(zip(known["switches"], switches, strict=True))
    types = {
        name: "constexpr"
        if name in constants
        else known["arguments"].get(name, "*fp32").format(kind=kind)
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, types, constexprs=constants)
    return triton.compile(source, target=target, options=known["options"])


def test_every_kernel_is_listed_here():
    found = {
        f"{file.relative_to(PACKAGE).as_posix()}:{name}"
        for file in modules()
        for name in kernels_of(file)
    }
    assert found == set(KERNELS)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("target", [*CAPABILITIES, AMD])
def test_every_kernel_compiles(name, kind, target, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # nothing compiled before counts
    file, function = name.split(":")
    kernel, known = kernels_of(PACKAGE / file)[function], KERNELS[name]
    place = GPUTarget("hip", AMD, 64) if target == AMD else GPUTarget("cuda", target, 32)
    for switches in itertools.product((False, True), repeat=len(known["switches"])):
        compiled = compile_for(kernel, known, kind, switches, place)
        assert compiled.asm["hsaco" if target == AMD else "cubin"], switches
        assert compiled.metadata.shared <= SHARED[target], switches
