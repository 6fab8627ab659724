"""`from_csv`: numbers standardised, categories encoded, nothing missing or unknown in silence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_bn.data import TableTransform, from_csv
from tinygrad_bn.errors import ArgumentError, DataError, DependencyError
from tinygrad_bn.random import Generator

pandas = pytest.importorskip("pandas")


def frame(**columns: list[Any]) -> Any:
    return pandas.DataFrame(columns)


HOUSES = frame(
    area=[50.0, 70.0, 90.0, 110.0],
    rooms=[1, 2, 3, 4],
    city=["Rome", "Oslo", "Rome", "Bern"],
    garden=[True, False, True, True],
    price=[1.5, 2.5, 3.5, 4.5],
)


class TestFeatures:
    def test_numbers_come_first_and_categories_follow(self) -> None:
        transform = TableTransform.fit(HOUSES, "price")
        assert transform.feature_names == [
            "area",
            "rooms",
            "city=Bern",
            "city=Oslo",
            "city=Rome",
            "garden=False",
            "garden=True",
        ]
        (x,) = transform.features(HOUSES)
        assert (x.shape, x.dtype.name) == ((4, 7), "float32")
        z = np.array([-3, -1, 1, 3]) / np.sqrt(5)  # of any four equidistant numbers
        np.testing.assert_allclose(x.numpy()[:, 0], z, rtol=1e-7)  # rounded to float32 once
        np.testing.assert_allclose(x.numpy()[:, 1], z, rtol=1e-7)
        assert x.tolist()[0][2:] == [0, 0, 1, 0, 1]
        assert x.tolist()[3][2:] == [1, 0, 0, 0, 1]

    def test_indices_for_an_embedding(self) -> None:
        transform = TableTransform.fit(HOUSES, "price", encoding="index")
        x, codes = transform.features(HOUSES)
        assert (x.shape, codes.shape, codes.dtype.name) == ((4, 2), (4, 2), "int64")
        assert codes.tolist() == [[2, 1], [1, 0], [2, 1], [0, 1]]
        assert transform.cardinalities == [3, 2]
        assert transform.feature_names == ["area", "rooms"]

    def test_numbers_that_are_categories(self) -> None:
        transform = TableTransform.fit(HOUSES, "price", categorical=["rooms"])
        assert "rooms=3" in transform.feature_names

    def test_a_table_of_one_kind_only(self) -> None:
        numbers = TableTransform.fit(HOUSES[["area", "price"]], "price", encoding="index")
        assert [x.shape for x in numbers.features(HOUSES)] == [(4, 1), (4, 0)]
        words = TableTransform.fit(HOUSES[["city", "price"]], "price")
        assert [x.shape for x in words.features(HOUSES)] == [(4, 3)]

    def test_a_constant_column_becomes_zero(self) -> None:
        table = frame(a=[7.0, 7.0], y=[0.5, 1.5])
        (x,) = TableTransform.fit(table, "y").features(table)
        assert x.tolist() == [[0], [0]]

    def test_new_rows_are_seen_with_the_old_eyes(self) -> None:
        transform = TableTransform.fit(HOUSES, "price")
        new = frame(extra=[0], garden=[False], city=["Oslo"], rooms=[2.5], area=[80.0])
        (x,) = transform.features(new)
        assert x.tolist() == [[0, 0, 0, 1, 0, 1, 0]]

    def test_columns_that_are_not_there(self) -> None:
        transform = TableTransform.fit(HOUSES, "price")
        with pytest.raises(DataError, match=r"expected columns \['area', 'garden'\]"):
            transform.features(HOUSES[["rooms", "city"]])
        for arguments in ({"target": "cost"}, {"target": "price", "categorical": ["town"]}):
            with pytest.raises(DataError, match="expected columns"):
                TableTransform.fit(HOUSES, **arguments)

    @pytest.mark.parametrize(
        ("value", "message"),
        [("many", "expected numbers in column 'rooms'"), (np.inf, "got 1 infinite")],
    )
    def test_values_that_are_no_finite_numbers(self, value: object, message: str) -> None:
        transform = TableTransform.fit(HOUSES, "price")
        with pytest.raises(DataError, match=message):
            transform.features(HOUSES.assign(rooms=[1, 2, 3, value]))


class TestMissing:
    GAPS = frame(a=[1.0, None, 3.0, None], c=["x", "y", None, "x"], y=[0.5, 1.5, 2.5, 3.5])

    def test_an_error_names_the_column_and_the_count(self) -> None:
        with pytest.raises(DataError, match="no missing values in column 'a', got 2"):
            TableTransform.fit(self.GAPS, "y")
        with pytest.raises(DataError, match="no missing values in column 'c', got 1"):
            TableTransform.fit(self.GAPS, "y", missing_numbers="mean")

    @pytest.mark.parametrize("encoding", ["one_hot", "index"])
    def test_filled(self, encoding: Any) -> None:
        transform = TableTransform.fit(
            self.GAPS,
            "y",
            missing_numbers="mean",
            missing_categories="category",
            encoding=encoding,
        )
        x, *codes = transform.features(self.GAPS)
        assert x.numpy()[:, 0].tolist() == [-1, 0, 1, 0]
        if encoding == "index":
            assert codes[0].tolist() == [[0], [1], [2], [0]]
        else:
            assert x.numpy()[:, 1:].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]

    def test_missing_later_is_still_an_error(self) -> None:
        transform = TableTransform.fit(self.GAPS.dropna(), "y", missing_categories="category")
        with pytest.raises(DataError, match="'a', got 2"):
            transform.features(self.GAPS)
        with pytest.raises(DataError, match=r"got 2 of \['None', 'y'\]"):
            transform.features(self.GAPS.assign(a=0.0))

    def test_a_column_of_nothing(self) -> None:
        table = frame(a=[np.nan, np.nan], y=[1.5, 2.5])
        with pytest.raises(DataError, match="column 'a', got only missing values"):
            TableTransform.fit(table, "y", missing_numbers="mean")

    @pytest.mark.parametrize("target", [[1.5, None, 2.5, 3.5], ["a", None, "b", "a"]])
    def test_targets_are_never_filled(self, target: list[Any]) -> None:
        with pytest.raises(DataError, match="no missing values in column 'y', got 1"):
            TableTransform.fit(
                self.GAPS.assign(y=target),
                "y",
                missing_numbers="mean",
                missing_categories="category",
            )


class TestUnseenCategories:
    NEW = HOUSES.assign(city=["Rome", "Kyiv", "Lima", "Kyiv"])

    def test_an_error_names_them(self) -> None:
        transform = TableTransform.fit(HOUSES, "price")
        with pytest.raises(
            DataError, match=r"3 known categories in column 'city', got 3 of \['Kyiv', 'Lima'\]"
        ):
            transform.features(self.NEW)

    def test_as_zeros(self) -> None:
        transform = TableTransform.fit(HOUSES, "price", unseen="other")
        (x,) = transform.features(self.NEW)
        assert x.numpy()[:, 2:5].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]

    def test_as_one_more_index(self) -> None:
        transform = TableTransform.fit(HOUSES, "price", unseen="other", encoding="index")
        _, codes = transform.features(self.NEW)
        assert codes.numpy()[:, 0].tolist() == [2, 3, 3, 3]
        assert transform.cardinalities == [4, 3]


class TestTargets:
    def test_regression(self) -> None:
        transform = TableTransform.fit(HOUSES, "price")
        y = transform.targets(HOUSES)
        assert (y.tolist(), y.dtype.name) == ([[1.5], [2.5], [3.5], [4.5]], "float32")
        assert transform.classes is None

    def test_classification(self) -> None:
        transform = TableTransform.fit(HOUSES, "city")
        y = transform.targets(HOUSES)
        assert (y.tolist(), y.dtype.name) == ([2, 1, 2, 0], "int64")
        assert transform.classes == ("Bern", "Oslo", "Rome")
        assert TableTransform.fit(HOUSES, "garden").targets(HOUSES).tolist() == [1, 0, 1, 1]

    def test_whole_numbers_could_be_either(self) -> None:
        with pytest.raises(ArgumentError, match="whole numbers in column 'rooms'"):
            TableTransform.fit(HOUSES, "rooms")
        regression = TableTransform.fit(HOUSES, "rooms", task="regression")
        assert regression.targets(HOUSES).tolist() == [[1], [2], [3], [4]]
        classes = TableTransform.fit(HOUSES, "rooms", task="classification")
        assert classes.targets(HOUSES).tolist() == [0, 1, 2, 3]

    def test_words_have_no_regression(self) -> None:
        with pytest.raises(DataError, match="expected numbers in column 'city'"):
            TableTransform.fit(HOUSES, "city", task="regression")

    def test_an_unknown_class(self) -> None:
        transform = TableTransform.fit(HOUSES, "city", unseen="other")
        with pytest.raises(DataError, match=r"got 1 of \['Kyiv'\]"):
            transform.targets(HOUSES.assign(city=["Rome", "Kyiv", "Rome", "Bern"]))


@pytest.mark.parametrize(
    "option",
    [
        {"task": "clustering"},
        {"encoding": "onehot"},
        {"missing_numbers": "drop"},
        {"missing_categories": "mean"},
        {"unseen": "ignore"},
    ],
)
def test_options_are_among_the_known(option: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"expected {next(iter(option))} to be one of"):
        TableTransform.fit(HOUSES, "price", **option)


class TestFromCsv:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """100 rows whose target is the number of the row."""
        rows = np.arange(100.0)
        table = frame(i=list(rows), sign=["+", "-"] * 50, y=list(rows + 0.5))
        table.to_csv(tmp_path / "table.csv.gz", index=False)
        return tmp_path / "table.csv.gz"

    def test_every_row_is_in_one_part(self, path: Path) -> None:
        table = from_csv(path, "y", generator=Generator().manual_seed(0))
        assert (len(table.train), len(table.test)) == (80, 20)
        y = np.concatenate([part.tensors[-1].numpy()[:, 0] for part in (table.train, table.test)])
        assert sorted(y) == [i + 0.5 for i in range(100)]
        assert list(y) != sorted(y)

    def test_the_seed_decides(self, path: Path) -> None:
        def targets(seed: int) -> list[Any]:
            table = from_csv(path, "y", generator=Generator().manual_seed(seed))
            return table.test.tensors[-1].tolist()

        assert targets(1) == targets(1) != targets(2)

    def test_only_the_training_part_is_learnt_from(self, path: Path) -> None:
        table = from_csv(path, "y", generator=Generator().manual_seed(0))
        x = table.train.tensors[0].numpy()[:, 0]
        # sums of 80 numbers near 1, each rounded to float32
        np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-6)
        assert abs(table.test.tensors[0].numpy()[:, 0].mean()) > 1e-3

    def test_no_test_part(self, path: Path) -> None:
        table = from_csv(path, "y", test_fraction=0)
        assert (len(table.train), len(table.test)) == (100, 0)
        assert table.test.tensors[0].shape == (0, 3)

    @pytest.mark.parametrize("fraction", [1, -0.1, 2, float("nan")])
    def test_fractions_out_of_range(self, path: Path, fraction: float) -> None:
        with pytest.raises(ArgumentError, match="expected a test_fraction"):
            from_csv(path, "y", test_fraction=fraction)

    def test_words_for_missing(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text("a,y\n1,0.5\n?,1.5\n3,2.5\n")
        table = from_csv(tmp_path / "x.csv", "y", test_fraction=0)
        assert table.transform.feature_names == ["a=1", "a=3", "a=?"]
        with pytest.raises(DataError, match="column 'a', got 1"):
            from_csv(tmp_path / "x.csv", "y", test_fraction=0, na_values=["?"])

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("empty.csv", b""),
            ("header.csv", b"a,b\n"),
            ("ragged.csv", b'a,b\n1,2\n"3,4\n'),
            ("binary.csv", b"\xff\xfe\0\x81" * 20),
            ("cut.csv.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03abc"),
            ("plain.csv.gz", b"a,b\n1,2\n"),
        ],
    )
    def test_files_that_are_no_tables(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="expected"):
            from_csv(tmp_path / name, "b")

    def test_folders_and_missing_files(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none.csv"):
            with pytest.raises(DataError, match="expected a table in"):
                from_csv(path, "y")

    def test_without_pandas_the_error_says_what_to_install(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(DependencyError, match="pip install pandas"):
            from_csv(path, "y")
