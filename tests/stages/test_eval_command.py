"""`nml eval` at the terminal: its tables, its threshold, and what it refuses before any work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, NmlError, ThresholdMissed
from nmlcli.products.tables import write_sidecar
from nmlcli.provenance import Record
from nmlcli.stages.eval import check_threshold
from nmlcli.stages.scoring import Scoring
from tests.stages.test_eval import CLASSES, make_head, score

__all__ = ["make_head"]  # the fixture

Show = Any


@pytest.fixture
def show(capsys: Any, monkeypatch: Any) -> Show:
    """Run the command for a table, and take its lines apart at two spaces or more."""
    monkeypatch.setenv("COLUMNS", "160")

    def shown(*words: str) -> list[list[str]]:
        capsys.readouterr()
        assert run(["eval", *words, "--table", "-q"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]

    return shown


def column(table: list[list[str]], name: str) -> list[str]:
    place = table[0].index(name)
    return [row[place] for row in table[2:]]


def test_the_accuracy_is_shown_with_both_ends(make_features: Any, make_head: Any, show: Show) -> None:
    head = make_head("one.safetensors", classes=("ant",), hidden=False)
    path = make_features("t.h5", classes=("ant",), rows=20)
    assert column(show(head, path), "accuracy, %") == ["100.0 (83.9–100.0)"]
    head, path = make_head(), make_features("u.h5", classes=CLASSES)
    table = show(head, path)
    (line,) = score(head, path)
    ends = "–".join(f"{100 * line[f'accuracy_{end}']:.1f}" for end in ("low", "high"))
    assert column(table, "accuracy, %") == [f"{100 * line['accuracy']:.1f} ({ends})"]
    assert column(table, "method") == ["mlp 3"]
    unseeded = make_head("s0.safetensors", extra={"method": "lp", "seed": 0})
    assert column(show(unseeded, path), "method") == ["lp"]


def test_resampled_intervals_are_a_row_below(make_features: Any, make_head: Any, show: Show) -> None:
    head, path = make_head(hidden=False), make_features("t.h5", classes=CLASSES, rows=300)
    table = show(head, path, "--bootstrap", "30", "--metric", "mcc")
    (line,) = score(head, path, scoring=Scoring("mcc", resamplings=30))
    assert table[0] == ["set", "method", "role", "accuracy, %", "MCC", "NLL", "ECE"]
    accuracy, score_ends, nll, ece = table[3]
    assert accuracy == f"{100 * line['accuracy_low']:.1f}–{100 * line['accuracy_high']:.1f}"
    assert column(table[:3], "accuracy, %") == [f"{100 * line['accuracy']:.1f}"]
    assert score_ends == f"{100 * line['score_low']:.1f} to {100 * line['score_high']:.1f}"
    assert nll == f"{line['nll_low']:.2f}–{line['nll_high']:.2f}"
    assert ece == f"{100 * line['ece_low']:.1f}–{100 * line['ece_high']:.1f}"
    _, f1 = show(head, path, "--bootstrap", "30", "--per-class")[3]
    assert f1 == f"{100 * line['macro_f1_low']:.1f}–{100 * line['macro_f1_high']:.1f}"


def test_classes_have_a_row_each(make_features: Any, make_head: Any, show: Show) -> None:
    head, path = make_head(), make_features("t.h5", classes=CLASSES, rows=300)
    whole, *classes = score(head, path, per_class=True)
    table = show(head, path, "--per-class")
    assert column(table, "class") == ["all", *CLASSES]
    seen = 0
    for line, row in zip(classes, table[3:], strict=True):
        if line["precision"] is not None:
            seen += line["precision"] != line["accuracy"]
            wanted = [f"{100 * line[key]:.1f}" for key in ("accuracy", "precision", "f1")]
            assert row[-3:] == wanted
    assert seen
    words = ("--per-class", "--metric", "mcc", "--versus", make_head("second.safetensors"))
    above, header, _, first, *_ = show(head, path, *words)
    assert above == ["accuracy"]
    assert header == ["set", "method", "class", "rows", "accuracy, %", "MCC", "precision", "F1",
                      "difference", "95 % interval", "McNemar p"]  # fmt: skip
    (line,) = score(head, path, versus=words[-1])
    assert f"{100 * line['difference']:+.2f}" in first and f"{100 * whole['macro_f1']:.1f}" in first


def test_scores_are_headed_by_what_they_are(make_features: Any, make_head: Any, capsys: Any) -> None:
    head, path = make_head(), make_features("t.h5", classes=CLASSES)

    def header(*words: str) -> str:
        capsys.readouterr()
        assert run(["eval", head, path, "--table", "-q", *words]) == 0
        return " ".join(capsys.readouterr().out.split("──")[0].split())

    assert "F1 of ant" in header("--metric", "f1", "--positive", "ant")
    versus = ("--versus", make_head("second.safetensors"))
    assert "accuracy" not in header(*versus).split("accuracy, %")[1]
    assert "accuracy" in header(*versus, "--metric", "mcc").replace("accuracy, %", "")
    assert "class mean" in header("--metric", "mean-class")


def test_the_threshold_is_of_every_line(make_features: Any, make_head: Any, capsys: Any) -> None:
    (line,) = score(make_head(), make_features("t.h5", classes=CLASSES))
    # Heads of a grid differ in their options alone.
    twins = [{**line, "score": value, "options": f"lr={value}"} for value in (0.1, 0.9)]
    of_class = {**line, "kind": "class", "score": -1.0}
    for lines in (twins, twins[::-1]):
        with pytest.raises(ThresholdMissed, match=r"mlp s3 lr=0\.1 on .*: accuracy 0\.1000 is"):
            check_threshold(lines, 0.4)
    check_threshold([twins[1], of_class], 0.4)
    for none in ([], [of_class]):
        with pytest.raises(InvalidInput, match="nothing was scored"):
            check_threshold(none, 0.0)


def test_a_threshold_of_0_is_one(
    make_features: Any, make_head: Any, tmp_path: Path, capsys: Any
) -> None:
    bare = make_features("bare.h5", classes=CLASSES, labelled=False)
    words = ["eval", make_head(), bare, "--predictions", str(tmp_path / "p.csv"), "--table"]
    assert run(words) == 0
    assert capsys.readouterr().out == ""  # no empty table
    assert run([*words, "--fail-under", "0"]) == 1
    assert "nothing was scored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tags", "wrong"),
    [
        (["role"], "role is no KEY=VALUE"),
        (["=far"], "=far is no KEY=VALUE"),
        (["a=1", "b=2", "a=3"], "a is given twice"),
    ],
)
def test_tags_are_keys_with_values(tags: list[str], wrong: str, capsys: Any) -> None:
    assert run(["eval", "head", "features", *(word for tag in tags for word in ("--tag", tag))]) == 2
    assert f"--tag {wrong}" in capsys.readouterr().err


def test_outputs_that_cannot_be_are_refused_before_any_work(
    make_features: Any, make_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmlcli.stages.eval.read_features", None)  # nothing is opened
    head, path = make_head(), make_features("t.h5", classes=CLASSES)
    (tmp_path / "dir.csv").mkdir()
    both = str(tmp_path / "r.csv")
    (tmp_path / "map.csv").write_text("")
    for options, wrong in (
        ({"predictions": str(tmp_path / "dir.csv")}, "is a folder"),
        ({"predictions": str(tmp_path / "nodir" / "p.csv")}, "nodir does not exist"),
        ({"predictions": "-"}, "--predictions go to a file"),
        ({"predictions": both, "results": both}, "--results and --predictions are one file"),
        ({"results": "-"}, "not to stdout"),
        ({"results": str(tmp_path / "map.csv"), "class_map": str(tmp_path / "map.csv")}, "overwrite"),
    ):
        with pytest.raises(NmlError, match=wrong):
            score(head, path, **options)


def test_predictions_leave_no_record_of_another_table(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    table = tmp_path / "p.csv"
    table.write_text("id,label\n")
    write_sidecar(table, Record("labels", "i" * 32, "corrupt"))
    score(make_head(), make_features("t.h5", classes=CLASSES), predictions=str(table))
    assert [path.name for path in tmp_path.glob("p.csv*")] == ["p.csv"]


def test_every_row_of_many_is_predicted(make_features: Any, make_head: Any, tmp_path: Path) -> None:
    head, path = make_head(hidden=False), make_features("t.h5", classes=CLASSES, rows=5000)
    score(head, path, predictions=str(tmp_path / "p.csv"))
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert len(rows) == 5001 and rows[-1].startswith("4999,")


def test_features_that_are_too_large_are_told_by_their_sample(
    make_features: Any, make_head: Any, recwarn: Any
) -> None:
    def grow(features: np.ndarray, _: np.ndarray) -> None:
        features[7] = 3e38

    path = make_features("t.h5", classes=CLASSES, change=grow)
    for hidden in (False, True):
        with pytest.raises(InvalidInput, match=r"t\.h5: the logits of 0007 are not finite"):
            score(make_head(hidden=hidden, classes=CLASSES), path)
    assert not [str(each.message) for each in recwarn if each.category is RuntimeWarning]


def test_every_network_of_a_folder_is_checked(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    (tmp_path / "heads").mkdir()
    path = make_features("t.h5", classes=CLASSES)
    for name, network in (("heads/a", "v"), ("heads/b", "m")):
        make_head(f"{name}.safetensors", model={"name": "net", "identity": network * 32,
                                                "layer": "pre_logits"})  # fmt: skip
    with pytest.raises(InvalidInput, match=r"another network than .*a\.safetensors"):
        score(str(tmp_path / "heads"), path)


def test_heads_of_a_folder_come_by_name(
    make_features: Any, make_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heads").mkdir()
    for name in ("heads/b.h5", "heads/a.h5", "heads/c.h5"):
        make_head(name, hidden=False)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listed(folder))[::-1]))
    lines = score(str(tmp_path / "heads"), make_features("t.h5", classes=CLASSES))
    assert [line["head"] for line in lines] == ["heads/a.h5", "heads/b.h5", "heads/c.h5"]
