"""`nml tune` as it is typed: the table of candidates, and what a typing error is told."""

from pathlib import Path
from typing import Any

import pytest

from nmlcli.cli.main import run
from nmlcli.products.formats import read_head
from nmlcli.tuning.methods import option_name

GRID = ["--method", "lp", "--epochs", "2", "--val-fraction", "0.3", "--grid", "lr=0.1,1e-5,wd=0,0.1"]


def test_the_candidates_are_a_table_on_stderr(make_features: Any, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "head.h5")
    assert run(["tune", make_features(), *GRID, "--seeds", "1", "-o", out]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    said, header, *rows = shown.err.splitlines()
    assert said.startswith(f"nml tune: {out}: lp, seed 0, on 63 rows")
    assert header.split("  ")[0] == "method"
    assert header.endswith("val accuracy, %  val loss")
    assert [row.split()[0] for row in rows] == ["lp"] * 4
    accuracies = [float(row.split()[3]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert max(map(len, [header, *rows])) <= 80
    assert run(["tune", make_features(), *GRID, "-q", "-o", out]) == 0
    assert capsys.readouterr().err == ""


def test_options_reach_the_head(make_features: Any, tmp_path: Path) -> None:
    out = str(tmp_path / "head.h5")
    given = ["--loss", "gce", "--gce-q", "0.5", "--schedule", "linear", "--fraction", "0.5", "--refit"]
    command = ["tune", make_features(), "--epochs", "2", "--val-fraction", "0.2", *given, "-o", out]
    assert run(command) == 0
    told = read_head(out).record.extra
    assert (told["loss"], told["fraction"], told["refit"]) == ("gce", 0.5, True)
    assert told["options"] == {"epochs": 2, "schedule": "linear", "gce_q": 0.5}


def test_every_setting_is_an_option(make_features: Any, tmp_path: Path) -> None:
    out = str(tmp_path / "head.h5")
    given = {
        "epochs": 2, "batch_size": 32, "lr": 0.01, "weight_decay": 0.5, "schedule": "linear",
        "layers": 3, "hidden": 5, "activation": "none", "lambda": 0.2, "mse": 2.0, "cov": 3.0,
        "svd": 4.0, "top": 2, "reduction": "element",
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (option_name(name), str(value))]
    switches = ["--batch-norm", "--residual"]
    assert run(["tune", make_features(), *words, *switches, "-q", "-o", out]) == 0
    told = read_head(out).record.extra["options"]
    assert told == {**given, "batch_norm": True, "residual": True}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--grid", "lrr=1,2"], "nml tune: --grid: no setting 'lrr': did you mean lr?\n"),
        (["--grid", "lr=1,x"], "nml tune: --grid lr: 'x' is no number\n"),
        (["--loss", "gca"], "nml tune: --loss: no 'gca': did you mean gce?\n"),
        (["--solver", "lbgfs"], "nml tune: --solver: no 'lbgfs': did you mean lbfgs?\n"),
        (["--schedule", "cosin"], "nml tune: --schedule: no 'cosin': did you mean cosine?\n"),
        (["--activation", "x"], "nml tune: --activation: no 'x': choose from relu, none\n"),
        (["--reduction", "rwo"], "nml tune: --reduction: no 'rwo': did you mean row?\n"),
        (["--method", ","], "nml tune: --method names no method: give some of lp, mlp, nmtune\n"),
        (["--method", ""], "nml tune: --method names no method: give some of lp, mlp, nmtune\n"),
        (["--log", ""], "nml tune: --log names no file: give a name, or leave it out\n"),
        (["--fraction", "0"], "nml tune: --fraction is 0: give a share above 0 and up to 1\n"),
        (["--fraction", "half"], "nml tune: --fraction is 'half': give a number\n"),
        (
            ["--method", "lp,mlp", "-o", "head.h5"],
            "nml tune: 2 heads do not go into one file: give a folder: -o DIR/, or --val or"
            " --val-fraction to keep the best\n",
        ),
    ],
)
def test_a_typing_error_is_told_in_a_line(
    make_features: Any, tmp_path: Path, capsys: Any, given: list[str], says: str
) -> None:
    assert run(["tune", make_features(), "-o", str(tmp_path / "head.h5"), *given]) == 2
    assert capsys.readouterr().err == says
