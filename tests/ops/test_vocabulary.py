"""The maths is written in the vocabulary of the port, so that every interpreter can read it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tinygrad_bn
from tinygrad_bn.backend import VOCABULARY, get_backend
from tinygrad_bn.ops.differentiable import differentiable, missing

PACKAGE = Path(tinygrad_bn.__file__).parent
BODIES = sorted(path for part in ("ops", "nn", "optim") for path in (PACKAGE / part).rglob("*.py"))

OF_NUMPY = {
    *("dtype", "promote_types", "iinfo", "bool_", "int64", "float32", "float64"),
    *("ndarray", "ma", "generic", "number", "integer", "floating"),
}
"""What operations may say of NumPy: dtypes, which are ours too, and what callers may give."""


def said_after(name: str, tree: ast.AST) -> set[str]:
    """Every word in ``name.word`` and ``anything.name.word``."""
    words = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            if name in (getattr(owner, "id", None), getattr(owner, "attr", None)):
                words.add(node.attr)
    return words


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a module imports, wherever it does."""
    packages = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            packages.add(node.module.partition(".")[0])
    return packages


@pytest.mark.parametrize("path", BODIES, ids=lambda path: str(path.relative_to(PACKAGE)))
class TestABody:
    def test_speaks_only_the_vocabulary(self, path: Path) -> None:
        assert said_after("xp", ast.parse(path.read_text())) <= VOCABULARY

    def test_names_no_array_library(self, path: Path) -> None:
        assert not imported(ast.parse(path.read_text())) & {"cupy", "numba", "scipy"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda path: path.name)
def test_an_operation_does_no_maths_with_numpy(path: Path) -> None:
    assert said_after("np", ast.parse(path.read_text())) <= OF_NUMPY


class TestTheVocabulary:
    def test_is_found_where_it_is_said(self) -> None:
        """The walk over the syntax, on a body that is known."""
        tree = ast.parse(
            "def f(self, x):\n    xp = self.xp\n    return xp.exp(self.xp.log(x)) + x.xq"
        )
        assert said_after("xp", tree) == {"exp", "log"}

    def test_is_what_numpys_adapter_offers(self) -> None:
        assert set(vars(get_backend("numpy").xp)) == VOCABULARY

    def test_can_be_said_of_tensors(self) -> None:
        assert missing() == frozenset()

    def test_of_tensors_has_no_word_that_arrays_lack(self) -> None:
        words = {w for w in dir(differentiable(get_backend("numpy")).xp) if not w.startswith("_")}
        assert words <= VOCABULARY
