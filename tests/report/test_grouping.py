"""Grouping: means over heads, sets and backbones in that order, spreads, differences, refusals."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.report.grouping import compare
from tests.report.lines import backbone, result


def cells(comparison):
    return {(*row.key, method): cell for row in comparison.rows for method, cell in row.cells.items()}


def test_one_run_has_the_interval_of_its_test_samples():
    cell = cells(compare([result(0.8)]))[0.0, "id", "lp"]
    assert (cell.value, cell.backbones, cell.sets, cell.heads) == (0.8, 1, 1, 1)
    assert cell.spread == pytest.approx(0.02)
    assert cell.difference is None


def test_the_interval_of_a_mean_over_sets_is_narrower():
    cell = cells(compare([result(0.8), result(0.6, task="glyphs")]))[0.0, "id", "lp"]
    assert cell.value == pytest.approx(0.7)
    assert cell.spread == pytest.approx(math.sqrt(0.02**2 + 0.02**2) / 2)
    assert cell.sets == 2


scores = st.floats(0, 1)


@given(
    st.lists(
        st.lists(st.lists(scores, min_size=2, max_size=2), min_size=1, max_size=3),
        min_size=2,
        max_size=4,
    )
)
def test_heads_then_sets_then_backbones(runs):
    """runs: backbones x heads x two sets; backbones may have different numbers of heads."""
    lines = [
        {**result(accuracy, 0.1, b, task=task), "seed": h, "head": f"{b}-{h}"}
        for b, heads in enumerate(runs)
        for h, sets in enumerate(heads)
        for task, accuracy in zip(("textures", "glyphs"), sets, strict=True)
    ]
    means = [sum(sum(head[s] for head in heads) / len(heads) for s in (0, 1)) / 2 for heads in runs]
    cell = cells(compare(lines))[0.1, "id", "lp"]
    assert cell.value == pytest.approx(sum(means) / len(means))
    assert cell.spread == pytest.approx(statistics.stdev(means), abs=1e-12)
    assert cell.backbones == len(runs)
    assert cell.heads == sum(map(len, runs))


def test_differences_are_to_the_clean_row_of_the_same_role():
    lines = [
        result(0.8), result(0.5, role="ood", domain="sketch"),
        result(0.7, 0.3), result(0.45, 0.3, role="ood", domain="sketch"),
    ]  # fmt: skip
    found = cells(compare(lines))
    assert found[0.3, "id", "lp"].difference == pytest.approx(-0.1)
    assert found[0.3, "ood", "lp"].difference == pytest.approx(-0.05)
    assert found[0.0, "id", "lp"].difference is None


def test_without_a_clean_row_there_are_no_differences():
    found = cells(compare([result(0.7, 0.1), result(0.6, 0.3)]))
    assert [cell.difference for cell in found.values()] == [None, None]


def test_two_noise_kinds_are_rows_of_their_own_with_the_same_clean_row():
    lines = [result(0.8), result(0.7, 0.3), {**result(0.6, 0.3, 1), "pretrain_noise": "pairflip"}]
    found = cells(compare(lines))
    assert found["symmetric", 0.3, "id", "lp"].difference == pytest.approx(-0.1)
    assert found["pairflip", 0.3, "id", "lp"].difference == pytest.approx(-0.2)


def test_noise_without_a_ratio_is_no_unknown_past():
    people = {**result(0.6, None, 1), "pretrain_noise": "human:worse", "pretrain_realised": 0.4}
    found = cells(compare([result(0.8), people, result(0.7, None, 2)]))
    assert found["human:worse", None, "id", "lp"].value == 0.6
    assert found[None, None, "id", "lp"].value == 0.7


def test_unlike_things_are_not_averaged():
    lines = [result(0.8), result(0.6, preset="released"), result(0.7, method="mlp")]
    comparison = compare(lines)
    assert comparison.keys == ("preset", "pretrain_ratio", "role")
    assert {cell.value for cell in cells(comparison).values()} == {0.8, 0.6, 0.7}


@pytest.mark.parametrize(
    "other", [{"layer": "layer3 max"}, {"class_map": "max"}, {"restricted": True}, {"fraction": 0.1}]
)
def test_what_was_measured_otherwise_is_kept_apart(other):
    comparison = compare([result(0.8), result(0.6, **other)])
    assert comparison.keys == (*other, "pretrain_ratio", "role")
    assert {cell.value for cell in cells(comparison).values()} == {0.8, 0.6}


def test_splits_are_kept_apart_only_where_a_set_has_two():
    assert "split" not in compare([result(0.8), result(0.7, task="glyphs", split="val")]).keys
    assert "split" in compare([result(0.8), result(0.7, split="val")], partial=True).keys


def test_networks_that_differ_in_nothing_told_are_not_averaged():
    older = {**result(0.6), "backbone_identity": "older"}
    comparison = compare([result(0.8), older, result(0.7, 0.3)])
    assert "backbone_identity" in comparison.keys
    found = {(row.key[0], row.cells["lp"].value, row.cells["lp"].difference) for row in comparison.rows}
    assert {value for _, value, _ in found} == {0.8, 0.6, 0.7}
    assert {difference for _, _, difference in found} == {None}  # which clean one is meant is open


def test_runs_of_other_seeds_are_averaged():
    assert "backbone_identity" not in compare([result(0.8, 0.0, 0), result(0.6, 0.0, 1)]).keys


def test_means_over_unequal_sets_are_refused():
    lines = [result(0.8), result(0.7, task="glyphs"), result(0.6, 0.3)]
    with pytest.raises(InvalidInput, match=r"pretrain_ratio 0.3, .*no result on glyphs:test"):
        compare(lines)
    found = cells(compare(lines, partial=True))
    assert found[0.3, "id", "lp"].sets == 1
    assert found[0.0, "id", "lp"].sets == 2


def test_other_roles_may_have_other_sets():
    compare(
        [result(0.8), result(0.7, role="ood", domain="sketch"), result(0.6, role="ood", domain="noise")]
    )


def test_a_backbone_that_lacks_a_set_is_refused_too():
    lines = [result(0.8, 0.3, 0), result(0.7, 0.3, 0, task="glyphs"), result(0.6, 0.3, 1)]
    with pytest.raises(InvalidInput, match="glyphs"):
        compare(lines)


def test_keys_of_ones_own():
    lines = [result(0.8), result(0.6, task="glyphs"), result(0.5, 0.3)]
    comparison = compare(lines, by=("task", "method"))
    assert comparison.keys == ("task",)
    found = cells(comparison)
    assert found["glyphs", "lp"].value == 0.6
    assert found["textures", "lp"].value == pytest.approx(0.65)
    assert found["textures", "lp"].backbones == 2


def test_side_measures_come_from_spectra_and_the_last_epoch():
    lines = [
        result(0.8), result(0.7, 0.3),
        {"kind": "spectrum", "task": "textures", "sve": 3.0, "lsvr": 2.0, **backbone(0.0)},
        {"kind": "spectrum", "task": "glyphs", "sve": 5.0, "lsvr": 4.0, **backbone(0.0)},
        {"kind": "epoch", "epoch": 1, "val_accuracy": 0.1, "backbone_identity": "b0.3-0"},
        {"kind": "epoch", "epoch": 2, "val_accuracy": 0.6, "backbone_identity": "b0.3-0"},
    ]  # fmt: skip
    clean, noisy = compare(lines).rows
    assert clean.measures == {"sve": 4.0, "lsvr": 3.0}
    assert noisy.measures == {"val_accuracy": 0.6}


def test_what_the_head_was_made_on_is_left_out_and_said():
    comparison = compare([result(0.8), result(1.0, seen=True, split="train")])
    assert cells(comparison)[0.0, "id", "lp"].value == 0.8
    assert any("1 lines score a set that the head was made on" in text for text in comparison.remarks)


def test_the_last_remark_says_what_one_seed_can_decide():
    one = compare([result(0.8), result(0.7, 0.3)]).remarks[-1]
    assert f"differences below {100 * math.sqrt(2) * 0.02:.1f} points may be chance" in one
    assert "takes more seeds" in one
    several = compare([result(0.8, 0.0, s) for s in range(3)]).remarks[-1]
    assert several == "±: standard deviation over 3 pre-training runs."


def test_rows_are_in_the_order_of_the_noise_and_unknown_comes_last():
    lines = [result(0.5, None), result(0.6, 0.3), result(0.7, 0.05), result(0.8, 0.0)]
    assert [row.key[0] for row in compare(lines).rows] == [0.0, 0.05, 0.3, None]


def test_other_metrics_have_no_interval():
    cell = cells(compare([result(0.8, nll=1.25)], metric="nll"))[0.0, "id", "lp"]
    assert (cell.value, cell.spread) == (1.25, None)


@pytest.mark.parametrize(
    ("lines", "options", "error", "words"),
    [
        ([], {}, InvalidInput, "no result lines"),
        ([{"kind": "spectrum"}], {}, InvalidInput, "no result lines"),
        (
            [{"kind": "epoch"}],
            {},
            InvalidInput,
            "no result lines to report, which other lines go along",
        ),
        ([result(0.8)], {"by": ("tusk",)}, UsageError, "no line has the key 'tusk'"),
        ([result(0.8)], {"metric": "acuracy"}, UsageError, "no line has a number for 'acuracy'"),
    ],
)
def test_refusals(lines, options, error, words):
    with pytest.raises(error, match=words):
        compare(lines, **options)
