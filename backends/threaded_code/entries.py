"""Entries: functions that load the words of an operand block and call what the first one points to.

There is one for each type of function, whatever the function.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

I64 = ir.IntType(64)
I32 = ir.IntType(32)

_known: dict[str, int] = {}
_libraries: list[Any] = []
"""What the entries' machine code belongs to."""
_lock = Lock()


def addresses_of(kinds: Sequence[ir.FunctionType | int]) -> list[int]:
    """The entry for each type, or the one that stands there; the new ones are compiled together."""
    with _lock:
        types = {str(kind): kind for kind in kinds if not isinstance(kind, int)}
        missing = {text: kind for text, kind in types.items() if text not in _known}
        if missing:
            assemble(missing)
        return [kind if isinstance(kind, int) else _known[str(kind)] for kind in kinds]


@global_compiler_lock  # type: ignore[untyped-decorator]
def assemble(kinds: dict[str, ir.FunctionType]) -> None:
    """Compile an entry for each of these types."""
    library = cpu_target.target_context.codegen().create_library("tinygrad_bn.entries")
    module = library.create_ir_module("tinygrad_bn.entries")
    names: dict[str, str] = {}
    for text, kind in kinds.items():
        names[text] = f"tinygrad_bn.entry.{len(_known) + len(names)}"
        write(ir.Function(module, ir.FunctionType(I32, [I64.as_pointer()]), names[text]), kind)
    library.add_ir_module(module)
    library.finalize()
    _libraries.append(library)
    for text, name in names.items():
        _known[text] = library.get_pointer_to_function(name)


def write(entry: ir.Function, kind: ir.FunctionType) -> None:
    """The body: load the words, call, return the status, which is 0 of a function without one."""
    build = ir.IRBuilder(entry.append_basic_block())
    words = entry.args[0]

    def load(number: int) -> Any:
        return build.load(build.gep(words, [ir.Constant(I64, number)]))

    target = build.inttoptr(load(0), kind.as_pointer())
    args = [as_type(build, load(i + 1), wanted) for i, wanted in enumerate(kind.args)]
    status = build.call(target, args)
    build.ret(ir.Constant(I32, 0) if isinstance(kind.return_type, ir.VoidType) else status)


def as_type(build: ir.IRBuilder, word: Any, wanted: ir.Type) -> Any:
    """The bits of a word as a pointer, an integer or a float."""
    if isinstance(wanted, ir.PointerType):
        return build.inttoptr(word, wanted)
    if isinstance(wanted, ir.IntType):
        return word if wanted.width == 64 else build.trunc(word, wanted)
    if isinstance(wanted, ir.DoubleType):
        return build.bitcast(word, wanted)
    return build.bitcast(build.trunc(word, I32), wanted)
