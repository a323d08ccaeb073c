"""`--grid` as it is typed."""

import pytest

from nmlcli.errors import UsageError
from nmlcli.tuning.grids import parse_grid, points


def test_values_have_the_types_of_their_settings() -> None:
    texts = ["lr=0.1,1e-2,wd=0", "layers=2,3", "activation=none", "batch-norm=yes,no", "lambda=.01",
             "hidden=64", "loss=ce,gce"]  # fmt: skip
    assert parse_grid(texts) == {
        "lr": (0.1, 0.01), "weight_decay": (0.0,), "layers": (2, 3), "activation": ("none",),
        "batch_norm": (True, False), "lambda_": (0.01,), "hidden": (64,), "loss": ("ce", "gce"),
    }  # fmt: skip


def test_points_are_all_combinations_and_one_of_nothing() -> None:
    assert points({}) == [{}]
    assert points({"lr": (1.0, 2.0), "layers": (2, 3)}) == [
        {"lr": 1.0, "layers": 2}, {"lr": 1.0, "layers": 3}, {"lr": 2.0, "layers": 2},
        {"lr": 2.0, "layers": 3},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["lrr=1"], "no setting 'lrr': did you mean lr"),
        (["weigth-decay=1"], "did you mean weight-decay"),
        (["solver=adamw"], "no setting 'solver'"),
        (["lr=1,x"], "--grid lr: 'x' is no number"),
        (["epochs=1.5"], "--grid epochs: '1.5' is no whole number"),
        (["activation=sigmoid"], "no 'sigmoid': choose from relu, none"),
        (["loss=gca"], "did you mean gce"),
        (["residual=maybe"], "neither yes nor no"),
        (["lr="], "--grid lr has no values"),
        (["lr=1e-3,,1e-2"], "--grid lr has a comma without a value: write lr=A,B"),
        (["lr=1,"], "--grid lr has a comma without a value"),
        (["lr=1,,wd=2"], "--grid lr has a comma without a value"),
        (["lr=1,1.0"], "--grid lr has a value twice"),
        (["lr=1", "lr=2"], "--grid lr is given twice"),
        (["wd=1", "weight-decay=2"], "given twice"),
        (["0.1,0.2"], "is no list of values"),
        ([""], "is no list of values"),
    ],
)
def test_a_grid_that_is_none_is_refused(texts: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_grid(texts)
