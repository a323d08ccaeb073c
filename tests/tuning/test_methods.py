"""How methods, presets and the knobs that are given make settings."""

import math

import pytest

from nmlcli.errors import UsageError
from nmlcli.tuning.methods import check_knobs, option_name, settle


def test_a_given_knob_is_recorded_where_it_differs_from_the_preset() -> None:
    settings, differing = settle("nmtune", "paper", {"cov": 0.5, "lambda_": 0.1, "epochs": 30})
    assert (settings.cov, settings.lambda_) == (0.5, 0.1)
    assert differing == {"cov": 0.5, "lambda": 0.1}


def test_a_knob_of_other_methods_is_left_out() -> None:
    settings, differing = settle("lp", "paper", {"cov": 0.5, "hidden": 7, "lr": 0.2})
    assert (settings.cov, settings.hidden, settings.lr) == (0.0, None, 0.2)
    assert differing == {"lr": 0.2}


def test_a_knob_that_no_chosen_method_has_is_refused() -> None:
    check_knobs(["lp", "nmtune"], {"cov": 0.5})
    with pytest.raises(UsageError, match=r"--cov does not apply to lp, mlp: it is for nmtune"):
        check_knobs(["lp", "mlp"], {"cov": 0.5})


@pytest.mark.parametrize(
    ("knob", "value"),
    [("epochs", 0), ("batch_size", 1), ("layers", 0), ("hidden", 0), ("top", 0), ("lr", -0.1),
     ("lr", math.nan), ("weight_decay", math.inf), ("lambda_", -1.0)],
)  # fmt: skip
def test_a_knob_out_of_range_is_refused(knob: str, value: float) -> None:
    with pytest.raises(UsageError, match=option_name(knob)):
        check_knobs(["nmtune"], {knob: value})


def test_an_infinite_knob_is_told_to_be_finite() -> None:
    with pytest.raises(UsageError, match="--lr is inf: give a finite number"):
        check_knobs(["lp"], {"lr": math.inf})


def test_options_are_named_as_they_are_typed() -> None:
    assert [option_name(knob) for knob in ("lambda_", "batch_size")] == ["--lambda", "--batch-size"]
