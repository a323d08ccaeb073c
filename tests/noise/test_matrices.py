"""Transition matrices as tables: rows are true classes and sum to 1."""

from fractions import Fraction

import pytest

from nmlcli.errors import InvalidInput
from nmlcli.noise.matrices import read_matrix


def read(tmp_path, text, classes=("a", "b", "c"), name="t.csv"):
    (tmp_path / name).write_text(text)
    return read_matrix(str(tmp_path / name), classes)


def test_rows_and_columns_are_matched_by_name(tmp_path):
    found = read(tmp_path, "true,c,a,b\nb,0,0.25,0.75\nc,1,0,0\na,0.1,0.7,0.2\n")

    assert found.rows == (
        (Fraction("0.7"), Fraction("0.2"), Fraction("0.1")),
        (Fraction("0.25"), Fraction("0.75"), 0),
        (0, 0, 1),
    )
    assert found.rates == (Fraction("0.3"), Fraction("0.25"), 0)
    targets, weights = found.targets(0)
    assert (targets.tolist(), weights.tolist()) == ([1, 2], [0.2, 0.1])
    assert len(found.targets(2)[0]) == 0


def test_rows_that_nearly_sum_to_one_are_divided_by_their_sum(tmp_path):
    third = "0.3333333"
    found = read(tmp_path, f"t,a,b,c\na,{third},{third},{third}\nb,0,1,0\nc,0,0,1\n")

    assert found.rows[0] == (Fraction(1, 3),) * 3
    assert all(sum(row) == 1 for row in found.rows)


def test_a_matrix_of_json_lines(tmp_path):
    text = '{"t":"a","a":0.5,"b":0.5}\n{"t":"b","a":0.00001,"b":0.99999}\n'
    assert read(tmp_path, text, ("a", "b"), "t.jsonl").rates == (Fraction("0.5"), Fraction("0.00001"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "t,a,b,c\na,.5,.5,0\nb,0,1,0\nc,0,0,.9\n",
            r"rows that do not sum to 1: c \(0\.9\): rows are true",
        ),
        (
            "t,a,b,c\na,.5,.5,.5\nb,.5,.5,0\nc,0,0,.5\n",
            r"a \(1\.5\), c \(0\.5\): its columns do: transpose",
        ),
        ("t,a,b,c\na,1.5,-.5,0\nb,0,1,0\nc,0,0,1\n", r"row 1, column b: -\.5 is no share"),
        ("t,a,b,c\na,nan,1,0\nb,0,1,0\nc,0,0,1\n", "nan is no share"),
        ("t,a,b,c\na,,1,0\nb,0,1,0\nc,0,0,1\n", "nothing is no share"),
        ("t,a,b\na,1,0\nb,0,1\n", "its columns lack classes of the labels: c"),
        ("t,a,b,c\na,1,0,0\nb,0,1,0\n", "its rows lack classes of the labels: c"),
        ("t,a,b,c\na,1,0,0\nb,0,1,0\nb,0,1,0\nc,0,0,1\n", "two rows of one class"),
        ("t,a,b,cc\na,1,0,0\nb,0,1,0\nc,0,0,1\n", "its columns name classes that the labels lack: cc"),
        ("t,a,b,c\na,1,0,0\nb,0,1,0\nd,0,0,1\n", "its rows name classes that the labels lack: d"),
        ("t\na\n", "its columns lack"),
    ],
)
def test_what_is_no_matrix(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path, text)
