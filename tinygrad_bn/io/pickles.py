"""A pickle machine that runs no code.

It knows the few instructions that data needs, and calls only what it is given.

Python's own unpickler imports what a file names and calls it. This one has no import: a name is a
key of a table, and what is not in the table is an error. It sets no attributes either.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tinygrad_bn.errors import DataError, TinygradError


@dataclass(frozen=True, slots=True)
class Call:
    """An entry of the table that a pickle may call; all others are mere values."""

    function: Callable[..., Any]


LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
IGNORED = frozenset({"PROTO", "FRAME"})


class Machine:
    """The stack, the marks in it, and the memo of one pickle.

    Parameters
    ----------
    names : what ``"module name"`` stands for.
    persistent : makes an object of a persistent id.
    """

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """The object that a pickle describes.

        Raises
        ------
        DataError
            If it is truncated, malformed, or wants more than this machine does.
        """
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name != "STOP":  # which is always the last
                    self.step(opcode.name, argument)
            return self.stack.pop()
        except TinygradError:
            raise
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise DataError(
                f"expected a well-formed pickle, got one with {error or type(error).__name__}"
            ) from error

    def step(self, name: str, argument: Any) -> None:
        if name in LITERALS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name not in IGNORED:
            operation = getattr(self, f"do_{name.lower()}", None)
            if operation is None:
                raise DataError(
                    f"expected a pickle of plain data and tensors, got the instruction {name}"
                )
            operation(argument)

    def since_mark(self) -> list[Any]:
        """What was pushed since the last mark, taken off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """The object on top of the stack, which must be exactly a ``kind``."""
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"a {type(self.stack[-1]).__name__} where a {kind.__name__} belongs")
        return self.stack[-1]

    def do_mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def do_empty_list(self, _: Any) -> None:
        self.stack.append([])

    def do_empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def do_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def do_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def do_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def do_append(self, _: Any) -> None:
        item = self.stack.pop()
        self.top(list).append(item)

    def do_appends(self, _: Any) -> None:
        items = self.since_mark()
        self.top(list).extend(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.top(dict)[simple(key)] = value

    def do_setitems(self, _: Any) -> None:
        items = self.since_mark()
        self.top(dict).update(zip(map(simple, items[::2]), items[1::2], strict=True))

    def do_binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    do_long_binput = do_binput

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    do_long_binget = do_binget

    def do_global(self, name: str) -> None:
        if name not in self.names:
            raise DataError(
                f"expected a state dict of tensors and plain data, got {name.replace(' ', '.')}, "
                f"which is not run; save model.state_dict() rather than objects"
            )
        self.stack.append(self.names[name])

    def do_stack_global(self, _: Any) -> None:
        name, module = simple(self.stack.pop()), simple(self.stack.pop())
        self.do_global(f"{module} {name}")

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))

    def do_reduce(self, _: Any) -> None:
        arguments = self.top(tuple)
        self.stack.pop()
        self.stack.append(self.top(Call).function(*arguments))
        del self.stack[-2]

    def do_build(self, _: Any) -> None:
        self.stack.pop()
        self.top(dict)  # a state dict's _metadata, of no use here


def simple(key: Any) -> Any:
    """The key, which must not be a container: hashing one that is full of itself takes for ever."""
    if type(key) not in (str, int, float, bool, type(None)):
        raise TypeError(f"a {type(key).__name__} as a key or a name")
    return key
