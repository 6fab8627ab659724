"""Nested structures of tensors, taken apart into arrays and a JSON text, and put together again.

In the text, None, booleans, numbers and strings stand for themselves; everything else is an object
with one key that says what it is: ``tensor`` with the array's name, ``list``, ``tuple``, ``dict``
(with key-value pairs, because JSON has only strings for keys), and ``float`` for those that JSON
lacks.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from tinygrad_bn.errors import ArgumentError, DataError, DtypeError
from tinygrad_bn.tensors import Tensor


def take_apart(obj: Any) -> tuple[str, dict[str, Tensor]]:
    """The JSON text of a structure, and its tensors by names made of the keys that lead to them.

    Raises
    ------
    DtypeError
        If it contains something other than tensors, numbers, strings, booleans, None, lists, tuples
        and dicts.
    ArgumentError
        If it contains itself, or is nested too deeply.
    """
    tensors: dict[str, Tensor] = {}
    try:
        return json.dumps(encode(obj, (), tensors), allow_nan=False), tensors
    except RecursionError:
        raise ArgumentError(
            "expected a structure of moderate depth, got one nested too deeply, or in itself"
        ) from None


def encode(obj: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if isinstance(obj, Tensor):
        name = unused(".".join(path) or "tensor", tensors)
        tensors[name] = obj
        return {"tensor": name}
    kind = type(obj)
    if obj is None or kind in (bool, int, str):
        return obj
    if kind is float:
        return obj if math.isfinite(obj) else {"float": repr(obj)}
    if kind in (list, tuple):
        return {kind.__name__: [encode(x, (*path, str(i)), tensors) for i, x in enumerate(obj)]}
    if kind in (dict, OrderedDict):
        return {
            "dict": [
                [encode_key(k, path), encode(x, (*path, str(k)), tensors)] for k, x in obj.items()
            ]
        }
    raise DtypeError(
        f"expected tensors, numbers, strings, booleans, None, lists, tuples and dicts, "
        f"got {kind.__name__} at {'.'.join(path) or 'the top'}"
    )


def encode_key(key: Any, path: tuple[str, ...]) -> Any:
    if isinstance(key, (Tensor, dict)):
        raise DtypeError(
            f"expected numbers and strings as keys, "
            f"got {type(key).__name__} at {'.'.join(path) or 'the top'}"
        )
    return encode(key, (*path, "key"), {})


def unused(name: str, tensors: dict[str, Tensor]) -> str:
    """The name, with a number where it is taken: by a key with a dot in it, or by the format."""
    free, number = name, 1
    while free in tensors or free == "__metadata__":
        number += 1
        free = f"{name}#{number}"
    return free


def put_together(text: str, tensor: Callable[[str], Tensor]) -> Any:
    """The structure that `take_apart` made ``text`` of, with ``tensor(name)`` for every tensor.

    Raises
    ------
    DataError
        If the text was not made by it.
    """
    try:
        return decode(json.loads(text), tensor)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"expected a structure that tinygrad_bn.save wrote, got {text[:80]!r}: {error}"
        ) from error


def decode(node: Any, tensor: Callable[[str], Tensor]) -> Any:
    if not isinstance(node, (dict, list)):
        return node
    if len(node) != 1 or isinstance(node, list):
        raise ValueError("an object without a kind")
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "float":
        return float(value)
    if kind == "list":
        return [decode(x, tensor) for x in value]
    if kind == "tuple":
        return tuple(decode(x, tensor) for x in value)
    if kind == "dict":
        return {decode(k, tensor): decode(x, tensor) for k, x in value}
    raise ValueError(f"unknown kind {kind!r}")
