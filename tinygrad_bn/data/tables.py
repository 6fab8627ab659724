"""Tables of numbers and categories, as tensors."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import numpy as np

from tinygrad_bn.data.columns import Category, Number, numbers
from tinygrad_bn.data.dataset import TensorDataset
from tinygrad_bn.errors import ArgumentError, DataError, DependencyError
from tinygrad_bn.random import Generator, default_generator, randperm
from tinygrad_bn.tensors import Tensor

if TYPE_CHECKING:
    import pandas

Task = Literal["regression", "classification"]


class Options(TypedDict, total=False):
    """What `TableTransform.fit` can be told; `from_csv` says what it means."""

    task: Task | None
    categorical: Sequence[str]
    encoding: Literal["one_hot", "index"]
    missing_numbers: Literal["error", "mean"]
    missing_categories: Literal["error", "category"]
    unseen: Literal["error", "other"]


@dataclass(frozen=True, slots=True)
class TableTransform:
    """How rows become tensors: fitted on one table, applied to any that has its columns.

    Attributes
    ----------
    numbers, categories : the feature columns, in the order of the features.
    target : the column to predict.
    classes : the target's classes by number; None for a regression.
    indexed : whether categories become numbers for an Embedding, rather than one-hot features.
    """

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    target: str
    classes: tuple[Any, ...] | None
    indexed: bool

    @classmethod
    def fit(
        cls,
        frame: pandas.DataFrame,
        target: str,
        *,
        task: Task | None = None,
        categorical: Sequence[str] = (),
        encoding: Literal["one_hot", "index"] = "one_hot",
        missing_numbers: Literal["error", "mean"] = "error",
        missing_categories: Literal["error", "category"] = "error",
        unseen: Literal["error", "other"] = "error",
    ) -> TableTransform:
        """Learn means, deviations, categories and classes from a table; see `from_csv`."""
        one_of("encoding", encoding, "one_hot", "index")
        one_of("missing_numbers", missing_numbers, "error", "mean")
        one_of("missing_categories", missing_categories, "error", "category")
        one_of("unseen", unseen, "error", "other")
        require_columns(frame, [target, *categorical])
        classes = classes_of(frame[target], task)
        numeric, categories = [], []
        for name in frame.columns.drop(target):
            column = frame[name]
            if name in categorical or not is_numeric(column):
                categories.append(
                    Category.fit(column, missing_categories == "category", unseen == "other")
                )
            else:
                numeric.append(Number.fit(column, missing_numbers == "mean"))
        return cls(tuple(numeric), tuple(categories), target, classes, encoding == "index")

    @property
    def feature_names(self) -> list[str]:
        """What each column of the features stands for: ``"age"``, ``"sex=Female"``."""
        names = [str(column.name) for column in self.numbers]
        if not self.indexed:
            names += [f"{c.name}={value}" for c in self.categories for value in c.values]
        return names

    @property
    def cardinalities(self) -> list[int]:
        """How many categories each categorical column has, as an Embedding must know."""
        return [column.cardinality for column in self.categories]

    def features(self, frame: pandas.DataFrame) -> tuple[Tensor, ...]:
        """The features of every row; columns that are not among them are left alone.

        Shapes
        ------
        One tensor (N, ``len(feature_names)``), float32; where categories are indexed, another
        (N, ``len(cardinalities)``), int64.

        Raises
        ------
        DataError
            If a column is missing, or a value in it missing or unknown and must not be.
        """
        known: list[Number | Category] = [*self.numbers, *self.categories]
        require_columns(frame, [column.name for column in known])
        columns = [number.apply(frame[number.name])[:, None] for number in self.numbers]
        if not self.indexed:
            columns += [column.one_hot(frame[column.name]) for column in self.categories]
        x = Tensor(np.concatenate([np.empty((len(frame), 0)), *columns], axis=1).astype(np.float32))
        if not self.indexed:
            return (x,)
        codes = [column.codes(frame[column.name])[:, None] for column in self.categories]
        none = np.empty((len(frame), 0), np.int64)
        return x, Tensor(np.concatenate([none, *codes], axis=1))

    def targets(self, frame: pandas.DataFrame) -> Tensor:
        """What to predict for every row.

        Shapes
        ------
        (N,) int64, the number of the class; or (N, 1) float32, in the column's unit, for a
        regression.

        Raises
        ------
        DataError
            If a target is missing, infinite, or of an unknown class.
        """
        require_columns(frame, [self.target])
        column = frame[self.target]
        if self.classes is None:
            return Tensor(numbers(column, False)[:, None].astype(np.float32))
        return Tensor(Category(self.target, self.classes, False).codes(column))

    def dataset(self, frame: pandas.DataFrame) -> TensorDataset:
        """The features and targets of every row, side by side."""
        return TensorDataset(*self.features(frame), self.targets(frame))


@dataclass(frozen=True, slots=True)
class Table:
    """A table's training part and test part, and the transformation fitted on the training part."""

    train: TensorDataset
    test: TensorDataset
    transform: TableTransform


def from_csv(
    path: str | os.PathLike[str],
    target: str,
    *,
    test_fraction: float = 0.2,
    generator: Generator | None = None,
    na_values: Sequence[str] = (),
    **options: Unpack[Options],
) -> Table:
    """Read a table with a header line, split it at random, and make tensors of it.

    Columns of numbers are standardised by the mean and standard deviation of the training part;
    all others are categories.

    Parameters
    ----------
    path : the CSV file, which may be compressed, by its suffix.
    target : the column to predict.
    test_fraction : how much of the rows to keep for the test part, within [0, 1).
    generator : where the split comes from; the CPU's default generator if None.
    na_values : strings that mean a missing value, besides pandas's own, such as ``"?"``.
    task : ``"regression"`` or ``"classification"``; needed only where the targets are whole
        numbers.
    categorical : columns of numbers that are categories all the same.
    encoding : ``"one_hot"`` features for categories, or an ``"index"`` each, for an Embedding.
    missing_numbers : ``"error"``, or ``"mean"``, that of the training part.
    missing_categories : ``"error"``, or ``"category"``: missing is a category like others.
    unseen : categories that the training part does not have are an ``"error"``, or ``"other"``: all
        zeros where they are one-hot, one more index otherwise.

    Raises
    ------
    DataError
        If the file cannot be read, or its values are not as promised; the message names the column.
    ArgumentError
        If an argument is none of the above.

    Examples
    --------
    >>> table = from_csv("houses.csv", target="price")
    >>> x, y = table.train[:8]
    >>> table.transform.features(new_houses)
    """
    if not 0 <= test_fraction < 1:
        raise ArgumentError(f"expected a test_fraction within [0, 1), got {test_fraction}")
    frame = read_frame(path, na_values)
    test_size = round(len(frame) * test_fraction)
    order = randperm(len(frame), generator=generator or default_generator).cpu().numpy()
    train, test = frame.iloc[order[test_size:]], frame.iloc[order[:test_size]]
    transform = TableTransform.fit(train, target, **options)
    return Table(transform.dataset(train), transform.dataset(test), transform)


def read_frame(path: str | os.PathLike[str], na_values: Sequence[str]) -> pandas.DataFrame:
    library = pandas_library()
    try:
        frame: pandas.DataFrame = library.read_csv(
            path, na_values=list(na_values), low_memory=False
        )
    except (OSError, EOFError, ValueError, library.errors.ParserError) as error:
        raise DataError(f"expected a table in {path}, got {error}") from error
    if not len(frame):
        raise DataError(f"expected rows below the header of {path}, got none")
    return frame


def classes_of(column: pandas.Series[Any], task: Task | None) -> tuple[Any, ...] | None:
    """The classes in a column of targets; None if it is for a regression."""
    if task is None:
        if is_numeric(column) and column.dtype.kind in "iu":
            raise ArgumentError(
                f"expected task='regression' or 'classification' for the whole numbers "
                f"in column {column.name!r}, got None"
            )
        task = "regression" if is_numeric(column) else "classification"
    one_of("task", task, "regression", "classification")
    if task == "regression":
        numbers(column, False)
        return None
    return Category.fit(column, False, False).values


def is_numeric(column: pandas.Series[Any]) -> bool:
    """Whether a column holds numbers; truth values are categories."""
    types = pandas_library().api.types
    return bool(types.is_numeric_dtype(column) and not types.is_bool_dtype(column))


def require_columns(frame: pandas.DataFrame, names: Sequence[Hashable]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DataError(f"expected columns {missing}, got {list(frame.columns)}")


def one_of(name: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise ArgumentError(f"expected {name} to be one of {choices}, got {value!r}")


def pandas_library() -> ModuleType:
    try:
        import pandas
    except ModuleNotFoundError:
        raise DependencyError(
            "expected the package pandas, which tables need, got none; pip install pandas"
        ) from None
    return pandas
