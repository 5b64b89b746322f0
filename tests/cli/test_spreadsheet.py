"""CSV files hold the values, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hub.cli import spreadsheet
from hub.errors import HubError


@pytest.mark.parametrize(
    "value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x","y")']
)
def test_a_value_that_begins_like_a_formula_is_text(tmp_path: Path, value: str) -> None:
    with spreadsheet.written(tmp_path / "x.csv", ("a", "b")) as add:
        add((value, -1))
    with (tmp_path / "x.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], [f"'{value}", "-1"]]


def test_others_stay_as_they_are() -> None:
    for value in ("", "Ann", "a=b", "1-2", "ä@b", 5, -1.5, None):
        assert spreadsheet.safe(value) == value


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(HubError, match="cannot be written: No such file"),
        spreadsheet.written(tmp_path / "no" / "x.csv", ("a",)),
    ):
        raise AssertionError("there is no such folder")
