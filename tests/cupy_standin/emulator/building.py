"""From a kernel's source to a library of the host, which is kept for the next time."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
MACHINE = ("-std=c++17", "-O2", "-fPIC", "-shared")
DEVICE = (
    "-std=c++17", "-O1", "-fPIC", "-w", "-fvisibility=hidden", "-fno-strict-aliasing",
    "-fsanitize=alignment,bounds-strict,shift,integer-divide-by-zero,signed-integer-overflow",
)  # fmt: skip
BOUNDS = re.compile(r"__launch_bounds__\(([^,)]*)[^)]*\)\s*(\w+)\s*\(")
MOST_THREADS = 1024


FUSED = ("-ffp-contract=fast", "-fexpensive-optimizations")  # the second has the pass that fuses


class Missing(Exception):
    """There is no C++ compiler here."""


class CompileError(Exception):
    """The source is not valid; the compiler's words."""


@cache
def compiler() -> str:
    """The path of g++, or of what CXX names.

    Raises
    ------
    Missing
        If there is none.
    """
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        raise Missing(f"executing CUDA kernels on the CPU needs g++, and there is no {name!r}")
    return path


@cache
def folder() -> Path:
    """Where libraries are kept: this user's, by what they are made of."""
    path = Path(tempfile.gettempdir()) / f"tinygrad_bn-kernels-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@cache
def headers() -> str:
    """What every library depends on besides its source."""
    files = sorted(p for p in HERE.iterdir() if p.suffix in (".h", ".cpp"))
    return "".join(p.read_text() for p in files) + compiler_version()


@cache
def compiler_version() -> str:
    return run(compiler(), "--version")


@cache
def arithmetic() -> tuple[str, ...]:
    """Products are added unrounded, as by NVRTC, wherever the source does not say otherwise; on
    processors that can.
    """
    if platform.machine() != "x86_64":
        return FUSED
    flags = Path("/proc/cpuinfo")
    able = flags.exists() and re.search(r"\bfma\b", flags.read_text()) is not None
    return (*FUSED, "-mfma") if able else ("-ffp-contract=off",)


def run(*command: str) -> str:
    """What a command prints.

    Raises
    ------
    CompileError
        If it fails, with what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout


def kept(kind: str, *ingredients: str) -> Path:
    digest = hashlib.sha256("\0".join((headers(), *ingredients)).encode()).hexdigest()
    return folder() / f"{kind}-{digest[:20]}.so"


@cache
def machine() -> Path:
    """The library that executes kernels."""
    path = kept("machine", *MACHINE)
    if not path.exists():
        source = str(HERE / "machine.cpp")
        with tempfile.TemporaryDirectory(dir=folder()) as place:
            built = Path(place) / "machine.so"
            run(compiler(), *MACHINE, source, "-o", str(built), "-lrt")
            built.replace(path)  # at once, for whoever builds the same beside us
    return path


def library(source: str, kernels: Sequence[str], options: Sequence[str]) -> Path:
    """A library with these kernels, by the expressions that name them, of a source.

    Raises
    ------
    CompileError
        If the source is not valid, or has no such kernel.
    Missing
        If there is no compiler.
    """
    flags = [*DEVICE, *arithmetic(), *(option for option in options if option.startswith("-D"))]
    whole = source + table(source, kernels)
    path = kept("kernels", *flags, whole)
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as place:
            text, code, built = (Path(place) / f"kernels.{end}" for end in ("cc", "o", "so"))
            text.write_text(whole)
            include = ("-include", str(HERE / "device.h"))
            run(compiler(), *flags, *include, "-c", str(text), "-o", str(code))
            # without the sanitizer's own library: device.h answers its calls
            run(compiler(), "-shared", str(code), str(machine()), "-o", str(built))
            built.replace(path)
    return path


def table(source: str, kernels: Sequence[str]) -> str:
    """The declaration of ``emu_kernels``, which says how to call each."""
    bounds = {name: bound for bound, name in BOUNDS.findall(source)}
    rows = "".join(
        f'    {{"{k}", emu::signature(&{k}), [](void** a) {{ emu::call(&{k}, a); }}, '
        f"{bounds.get(k.partition('<')[0], MOST_THREADS)}}},\n"
        for k in kernels
    )
    return (
        '\n#line 1 "the table of kernels"\nextern "C" {\n'
        '__attribute__((visibility("default"))) Kernel emu_kernels[] = {\n' + rows + "};\n}\n"
    )
