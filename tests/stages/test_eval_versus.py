"""Two classifiers of the same rows, a checkpoint's own classifier, and what a head was chosen on."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from nmlcli.cli.main import run
from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.formats import read_features, read_head, write_features
from nmlcli.products.tables import read_table
from nmlcli.stages.eval import EvalOptions, evaluate
from nmlcli.stages.scoring import Scoring
from tests.stages.conftest import MODEL
from tests.stages.test_eval import CLASSES, make_head, score

__all__ = ["make_head"]  # the fixture


def right(head: str, path: str) -> np.ndarray:
    features = read_features(path)
    return np.asarray(read_head(head).apply(features.matrix())[1].argmax(axis=1) == features.labels)


def test_two_heads_are_compared_on_the_same_rows(make_features: Any, make_head: Any) -> None:
    one, other = make_head(hidden=False), make_head("second.safetensors", hidden=False)
    path = make_features("t.h5", classes=CLASSES, rows=400, seed=1)
    (plain,) = score(one, path)
    (line,) = score(one, path, versus=other)
    a, b = right(one, path), right(other, path)
    assert line["difference"] == pytest.approx(a.mean() - b.mean())
    pairs = int((a & ~b).sum()), int((b & ~a).sum())
    assert min(pairs) > 0
    assert line["mcnemar"] == pytest.approx(binomtest(pairs[0], sum(pairs)).pvalue)
    spread = (sum(pairs) - (pairs[0] - pairs[1]) ** 2 / 400) ** 0.5 / 400
    ends = (line["difference"] - 1.96 * spread, line["difference"] + 1.96 * spread)
    assert (line["difference_low"], line["difference_high"]) == pytest.approx(ends, abs=4e-3)
    assert line["versus"] == "second.safetensors"
    assert line["identity"] != plain["identity"] and "difference" not in plain
    assert {key: line[key] for key in plain if key != "identity"} == {
        key: value for key, value in plain.items() if key != "identity"
    }
    (itself,) = score(one, path, versus=one)
    half = 1.959964**2 / (400 + 1.959964**2)  # as of Wilson's interval where no row is wrong
    ends = (itself["difference_low"], itself["difference_high"])
    assert (itself["difference"], itself["mcnemar"], ends) == (0, 1, pytest.approx((-half, half)))


def test_predictions_of_another_network_are_matched_by_id(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    one, other = make_head(hidden=False), make_head("second.safetensors")
    path = make_features("t.h5", classes=CLASSES, rows=200, seed=1)
    (wanted,) = score(one, path, versus=other)
    table = tmp_path / "said.csv"
    score(other, path, predictions=str(table))
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *sorted(rows, reverse=True, key=lambda row: row[3])]) + "\n")
    (line,) = score(one, path, versus=str(table))
    keys = ("difference", "difference_low", "difference_high", "mcnemar")
    assert {key: line[key] for key in keys} == {key: wanted[key] for key in keys}

    shorter = tmp_path / "shorter.csv"
    shorter.write_text("\n".join([header, *rows[5:]]) + "\n")
    with pytest.raises(InvalidInput, match=r"lacks samples of .*t.h5: 0000, 0001, 0002 and 2 more"):
        score(one, path, versus=str(shorter))
    with pytest.raises(InvalidInput, match=r"samples that .*fewer.h5 lacks: 0150"):
        fewer = make_features("fewer.h5", classes=CLASSES, rows=150, seed=1)
        table.write_text("\n".join([header, *rows]) + "\n")
        score(one, fewer, versus=str(table))
    with pytest.raises(InvalidInput, match="give other labels to 0"):
        score(one, make_features("u.h5", classes=CLASSES, rows=200, seed=2), versus=str(table))
    table.write_text("id,said\n0000,ant\n")
    with pytest.raises(InvalidInput, match="no column prediction"):
        score(one, path, versus=str(table))


def test_comparisons_that_cannot_be_made_are_refused(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    head, path = make_head(), make_features("t.h5", classes=CLASSES)
    bare = make_features("bare.h5", classes=CLASSES, labelled=False)
    with pytest.raises(InvalidInput, match="no labels: --versus"):
        score(head, bare, versus=head, predictions=str(tmp_path / "p.csv"))
    far = make_head("far.safetensors", model={**MODEL, "identity": "v" * 32})
    with pytest.raises(InvalidInput, match=r"another network than .*far"):
        score(head, path, versus=far)
    score(head, path, predictions=str(tmp_path / "p.csv"))
    with pytest.raises(UsageError, match="overwrite an input"):
        score(head, path, versus=str(tmp_path / "p.csv"), predictions=str(tmp_path / "p.csv"))


def test_probabilities_are_a_column_a_class(make_features: Any, make_head: Any, tmp_path: Path) -> None:
    head, path, table = (
        make_head(hidden=False),
        make_features("t.h5", classes=CLASSES),
        tmp_path / "p.csv",
    )
    score(head, path, predictions=str(table), scoring=Scoring(probabilities=True))
    said = list(csv.DictReader(table.open()))
    shares = np.array([[float(row[f"p({name})"]) for name in CLASSES] for row in said])
    logits = read_head(head).apply(read_features(path).matrix())[1].astype(float)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(shares, wanted, atol=1e-6)
    assert [CLASSES[k] for k in shares.argmax(axis=1)] == [row["prediction"] for row in said]
    for other in ("p.parquet", "p.jsonl"):
        score(head, path, predictions=str(tmp_path / other), scoring=Scoring(probabilities=True))
        columns = read_table(str(tmp_path / other)).values
        assert {name: list(columns[name]) for name in columns} == {
            name: [row[name] for row in said] for name in said[0]
        }
    with pytest.raises(UsageError, match="--predictions FILE"):
        score(head, path, scoring=Scoring(probabilities=True))


def test_tables_show_what_was_asked_for_in_80_columns(
    make_features: Any, make_head: Any, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    one, other = make_head(hidden=False), make_head("second.safetensors")
    path = make_features("t.h5", name="tiny-imagenet/photo:test", classes=CLASSES, seed=1)

    def table(*words: str) -> list[str]:
        assert run(["eval", one, path, "--table", "-q", *words]) == 0
        lines: list[str] = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 and max(map(len, lines)) <= 80
        return [*lines[0].split(), "|", *lines[2].split()]

    (line,) = score(one, path, versus=other)
    versus = table("--versus", other)
    assert versus[:10] == ["set", "method", "accuracy,", "%", "difference", "95", "%", "interval",
                           "McNemar", "p"]  # fmt: skip
    assert f"{100 * line['difference']:+.2f}" in versus
    assert f"{line['mcnemar']:.2g}" in versus
    (line,) = score(one, path, scoring=Scoring("mcc"))
    assert "MCC" in table("--metric", "mcc") and f"{100 * line['score']:.1f}" in table(
        "--metric", "mcc"
    )
    assert "MCC" not in table()
    assert run(["eval", one, path, "-q", "--metric", "mcc", "--fail-under", "0.99"]) == 3
    assert "mcc" in capsys.readouterr().err
    assert run(["eval", one, path, "--metric", "mc"]) == 2
    assert "did you mean mcc" in capsys.readouterr().err


def test_a_set_that_a_head_was_chosen_on_is_seen(
    make_features: Any, make_head: Any, caplog: Any
) -> None:
    path = make_features("val.h5", classes=CLASSES, seed=7)
    (plain,) = score(make_head(), path)
    assert (plain["fraction"], plain["selected_by"], plain["seen"]) == (1.0, None, False)
    facts = read_head(make_head()).record.extra
    watched = {**facts, "validated_on": [read_features(path).record.identity]}
    (line,) = score(make_head("w.safetensors", extra={**watched, "selected_by": None}), path)
    assert not line["seen"] and not caplog.records
    chosen = {**watched, "selected_by": "val_accuracy", "fraction": 0.1}
    (line,) = score(make_head("c.safetensors", extra=chosen), path)
    assert (line["seen"], line["fraction"], line["selected_by"]) == (True, 0.1, "val_accuracy")
    assert "1 of 1 heads were trained or chosen on this set" in caplog.text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any) -> tuple[str, str]:
    """A network of timm after an epoch, and the features it makes of another set."""
    from nmlcli.data.sources import SourceOptions
    from nmlcli.stages.embed import EmbedOptions, embed
    from nmlcli.stages.pretrain import pretrain
    from nmlcli.stages.pretrain_options import PretrainOptions

    folder = tmp_path_factory.mktemp("trained")
    network, features = str(folder / "net.safetensors"), str(folder / "test.h5")
    few = SourceOptions(limit=64)
    options = PretrainOptions(source=few, epochs=1, size=32, workers=0)
    pretrain("builtin:shapes:train", "test_resnet", network, options)
    embed(["builtin:shapes:test"], network, features, EmbedOptions(source=few))
    return network, features


def test_a_checkpoint_is_scored_by_its_own_classifier(trained: tuple[str, str]) -> None:
    import torch

    from nmlcli.models.schemes import Wanted, open_network

    network, path = trained
    (line,) = score(network, path)
    features = read_features(path)
    module = open_network(network, Wanted()).module
    with torch.no_grad():
        logits = module.get_classifier()(torch.from_numpy(features.matrix())).numpy()  # type: ignore[operator]
    labels = features.labels
    assert labels is not None and line["accuracy"] == np.mean(logits.argmax(axis=1) == labels)
    largest = logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits - largest).sum(axis=1)) + (largest[:, 0] - logits[range(64), labels])
    assert line["nll"] == pytest.approx(losses.mean(), rel=1e-5)
    assert (line["method"], line["seed"], line["role"], line["seen"]) == ("own", 0, "id", False)
    assert (line["train_set"], line["classes_scored"]) == ("shapes/photo:train", 16)
    assert line["head"] == line["backbone_identity"] == features.record.model["identity"]  # type: ignore[index]


def test_a_checkpoint_takes_no_other_features(
    trained: tuple[str, str], make_features: Any, tmp_path: Path
) -> None:
    network, path = trained
    features = read_features(path)
    matrix, other = features.matrix(), str(tmp_path / "other.h5")
    model = {**(features.record.model or {}), "identity": "v" * 32}
    record = replace(features.record, model=model)
    write_features(other, replace(features, record=record, blocks=lambda size: iter([matrix])))
    with pytest.raises(InvalidInput, match=r"other.h5 is of another network than .*net.safetensors"):
        evaluate(network, [other], EvalOptions())
    with pytest.raises(InvalidInput, match="8 columns"):
        evaluate(network, [make_features("t.h5", classes=CLASSES)], EvalOptions())


def said(path: Path, rows: dict[str, str], **labels: str) -> str:
    """A table of predictions, with labels where they are given."""
    header = "id,prediction,label\n" if labels else "id,prediction\n"
    path.write_text(header + "".join(
        f"{name},{what}{',' + labels.get('_' + name, '') if labels else ''}\n"
        for name, what in rows.items()
    ))  # fmt: skip
    return str(path)


def test_predictions_of_classes_that_nobody_has_are_refused(
    make_features: Any, make_head: Any, tmp_path: Path, caplog: Any
) -> None:
    head, path = make_head(), make_features("t.h5", classes=CLASSES[:3], rows=4, seed=1)
    ids, table = read_features(path).ids, tmp_path / "p.csv"
    with pytest.raises(InvalidInput, match="neither the set nor the head has: Zant, Zbee"):
        score(head, path, versus=said(table, dict(zip(ids, ["Zant", "Zbee"] * 2, strict=True))))
    score(head, path, versus=said(table, dict(zip(ids, ["Zant", "gnu", "ant", "cat"], strict=True))))
    assert caplog.messages[-1].endswith("neither the set nor the head has: Zant")
    caplog.clear()
    score(head, path, versus=said(table, dict.fromkeys(ids, "gnu")))  # of the head alone
    assert not caplog.records


def test_tables_of_predictions_that_do_not_fit(
    make_features: Any, make_head: Any, tmp_path: Path
) -> None:
    head, path = make_head(), make_features("t.h5", classes=CLASSES[:3], rows=4, seed=1)
    rows, table = dict.fromkeys(read_features(path).ids, "ant"), tmp_path / "p.CSV"
    (line,) = score(head, path, versus=said(table, rows))
    assert score(head, path, versus=said(table, rows, _0000=""))[0]["difference"] == line["difference"]
    with pytest.raises(InvalidInput, match=r"samples that .* lacks: 0004$"):
        score(head, path, versus=said(table, {**rows, "0004": "ant"}))
    table.write_text("id,prediction\n0000,ant\n0000,bee\n")
    with pytest.raises(InvalidInput, match=r"ids repeat: 0000$"):
        score(head, path, versus=str(table))


@pytest.mark.parametrize("classes", [CLASSES[:3], ("0", "1", "2")])
def test_our_own_predictions_of_a_set_without_names_fit_it(
    make_features: Any, make_head: Any, tmp_path: Path, classes: tuple[str, ...]
) -> None:
    head, table = make_head(hidden=False, classes=classes), str(tmp_path / "p.csv")
    path = make_features("bare.h5", classes=None)
    score(head, path, predictions=table)
    other = make_head("second.safetensors", classes=classes)
    (line,), (wanted,) = score(other, path, versus=table), score(other, path, versus=head)
    assert line["difference"] == wanted["difference"]


def test_it_is_said_where_the_other_head_was_trained_on_the_set(
    make_features: Any, make_head: Any, caplog: Any
) -> None:
    path = make_features("t.h5", classes=CLASSES, seed=1)
    (identity,) = {read_features(path).record.identity}
    rival = make_head("rival.safetensors", extra={"method": "lp", "trained_on": [identity]})
    (line,) = score(make_head(), path, versus=rival)
    assert not line["seen"]
    assert [each for each in caplog.messages if "rival.safetensors, compared with, was trained" in each]
