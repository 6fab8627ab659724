"""What becomes of one column of a table: a number, standardised, or a category, numbered."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn.errors import DataError

if TYPE_CHECKING:
    import pandas

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Number:
    """A column of numbers, standardised: by its mean and standard deviation where it was fitted.

    Attributes
    ----------
    name : the column's.
    mean, std : in the column's unit; std is the population's, and 1 where all values are equal.
    fill : whether a missing value stands for the mean, rather than being an error.
    """

    name: Hashable
    mean: float
    std: float
    fill: bool

    @classmethod
    def fit(cls, column: pandas.Series[Any], fill: bool) -> Number:
        """The mean and the standard deviation of what is there."""
        x = numbers(column, fill)
        present = x[~np.isnan(x)]
        if not present.size:
            raise DataError(f"expected numbers in column {column.name!r}, got only missing values")
        std = float(present.std())
        return cls(column.name, float(present.mean()), std if std > 0 else 1.0, fill)

    def apply(self, column: pandas.Series[Any]) -> Numbers:
        """The standardised values."""
        z = (numbers(column, self.fill) - self.mean) / self.std
        return np.where(np.isnan(z), 0.0, z)


def numbers(column: pandas.Series[Any], allow_missing: bool) -> Numbers:
    """The column as float64, with NaN where a value is missing.

    Raises
    ------
    DataError
        If something in it is no finite number, or is missing and must not be.
    """
    try:
        x: Numbers = column.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"expected numbers in column {column.name!r}, got {error}") from error
    if np.isinf(x).any():
        raise DataError(
            f"expected finite numbers in column {column.name!r}, got {np.isinf(x).sum()} infinite"
        )
    if not allow_missing and np.isnan(x).any():
        raise DataError(
            f"expected no missing values in column {column.name!r}, got {np.isnan(x).sum()}; "
            f"in features, missing_numbers='mean' fills them"
        )
    return x


@dataclass(frozen=True, slots=True)
class Category:
    """A column of categories, numbered as they sort.

    Attributes
    ----------
    name : the column's.
    values : the categories by number; None, the last where there is one, stands for missing values.
    other : whether a category unknown when this was fitted is one of its own, rather than an error.
    """

    name: Hashable
    values: tuple[Any, ...]
    other: bool

    @classmethod
    def fit(cls, column: pandas.Series[Any], allow_missing: bool, other: bool) -> Category:
        """The categories that there are."""
        missing = int(column.isna().sum())
        if missing and not allow_missing:
            raise DataError(
                f"expected no missing values in column {column.name!r}, got {missing}; "
                f"in features, missing_categories='category' makes them one"
            )
        present = tuple(sorted(column.dropna().unique().tolist(), key=lambda x: (str(type(x)), x)))
        return cls(column.name, (*present, None) if missing else present, other)

    @property
    def cardinality(self) -> int:
        """How many numbers `codes` gives: the rows that an Embedding needs."""
        return len(self.values) + self.other

    def codes(self, column: pandas.Series[Any]) -> Codes:
        """The number of each row's category; ``len(values)`` for an unknown one.

        Raises
        ------
        DataError
            If a category is unknown and must not be.
        """
        numbers = {value: number for number, value in enumerate(self.values)}
        values = column.astype(object).where(column.notna(), None).tolist()
        codes = np.array([numbers.get(value, len(self.values)) for value in values], np.int64)
        unknown = codes == len(self.values)
        if unknown.any() and not self.other:
            found = sorted({str(values[i]) for i in np.flatnonzero(unknown)})
            raise DataError(
                f"expected one of {len(self.values)} known categories in column {self.name!r}, "
                f"got {unknown.sum()} of {found}; in features, unseen='other' makes them one"
            )
        return codes

    def one_hot(self, column: pandas.Series[Any]) -> Numbers:
        """1 in the place of each row's category; all 0 for an unknown one."""
        return np.eye(len(self.values) + 1)[self.codes(column)][:, :-1]
