"""The entrance: reads the arguments, runs a command, and turns errors into one line and a code."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module

from tinygrad_bn.cli.options import build_parser
from tinygrad_bn.errors import TinygradError

EXTRAS = ("rich", "matplotlib", "threadpoolctl", "safetensors")
"""The packages of the extra ``cli`` that commands import."""
FAILED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0, 2 for an error, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± still gets its table
    args = build_parser().parse_args(argv)
    try:
        command = import_module(f"tinygrad_bn.cli.{args.command}")
        return int(command.run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if args.debug or package not in EXTRAS:
            raise
        return failed(f"{args.command} needs the package {package}: pip install 'tinygrad-bn[cli]'")
    except TinygradError as error:
        if args.debug:
            raise
        return failed(str(error))


def failed(message: str) -> int:
    """Say why on stderr, in one line."""
    print(f"tinygrad-bn: error: {' '.join(message.split())}", file=sys.stderr)
    return FAILED
