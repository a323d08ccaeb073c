"""Shares of a labelled set: balanced, nested, by the ids alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.errors import InvalidInput, UsageError
from nmlcli.products.formats import read_features
from nmlcli.stages.inputs import open_labelled
from nmlcli.stages.splits import Portion, fraction_of, gathered, split_off

FRACTIONS = (0.001, 0.01, 0.05, 0.1, 0.101, 0.25, 0.333, 0.5, 0.75, 0.9, 0.999, 1.0)


def uneven(_: np.ndarray, labels: np.ndarray) -> None:
    labels[:] = np.repeat([0, 1, 2], [60, 29, 1])


def ids_of(portion: Portion) -> list[str]:
    names = [name for part in portion.whole.parts for name in part.ids]
    return names if portion.rows is None else [names[row] for row in portion.rows]


@pytest.mark.parametrize("change", [None, uneven])
def test_shares_are_balanced_and_nested(make_features: Any, change: Any) -> None:
    whole = open_labelled([make_features(change=change)], None)
    before: set[str] = set()
    for fraction in FRACTIONS:
        portion = fraction_of(Portion(whole), fraction, 3)
        counts, sizes = (np.bincount(each, minlength=3) for each in (portion.labels, whole.labels))
        assert (counts >= 1).all()
        assert len(portion) == max(3, int(fraction * 90 + 0.5))
        assert (np.abs(counts - np.maximum(1, fraction * sizes)) <= 1.5).all()
        chosen = set(ids_of(portion))
        assert before <= chosen
        before = chosen
    assert len(before) == 90
    assert ids_of(fraction_of(Portion(whole), 0.5, 3)) != ids_of(fraction_of(Portion(whole), 0.5, 4))


def test_the_same_ids_are_chosen_for_every_network_and_order(make_features: Any) -> None:
    one = open_labelled([make_features()], None)
    other = open_labelled([make_features("other.h5", columns=5, model={"name": "vit"})], None)
    assert ids_of(fraction_of(Portion(one), 0.2, 0)) == ids_of(fraction_of(Portion(other), 0.2, 0))
    assert [ids_of(each) for each in split_off(Portion(one), 0.2, 0)] == [
        ids_of(each) for each in split_off(Portion(other), 0.2, 0)
    ]


def test_many_classes_get_a_row_each_however_small_the_share(make_features: Any) -> None:
    names = tuple(f"c{i:02d}" for i in range(40))
    whole = open_labelled([make_features(classes=names, rows=200, columns=12)], None)
    portion = fraction_of(Portion(whole), 0.001, 0)
    assert len(portion) == len(np.unique(whole.labels))
    assert set(portion.labels.tolist()) == set(whole.labels.tolist())


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.99])
def test_a_split_leaves_every_class_a_row_to_train_on(
    make_features: Any, caplog: Any, fraction: float
) -> None:
    caplog.set_level("WARNING", "nmlcli")
    whole = open_labelled([make_features(change=uneven)], None)
    training, validation = split_off(Portion(whole), fraction, 0)
    assert sorted([*ids_of(training), *ids_of(validation)]) == list(whole.parts[0].ids)
    assert set(training.labels.tolist()) == {0, 1, 2}
    assert set(validation.labels.tolist()) == {0, 1}  # the third class has one row
    assert "none to validate on: cat" in caplog.text
    assert len(validation) == min(max(2, int(fraction * 90 + 0.5)), 87)


def test_a_split_takes_of_a_share_and_stays_within_it(make_features: Any) -> None:
    whole = open_labelled([make_features()], None)
    portion = fraction_of(Portion(whole), 0.3, 1)
    training, validation = split_off(portion, 0.2, 1)
    assert sorted(ids_of(training) + ids_of(validation)) == sorted(ids_of(portion))


@pytest.mark.parametrize("change", [None, uneven])
def test_shares_of_what_a_split_leaves_are_nested(make_features: Any, change: Any) -> None:
    rest = split_off(Portion(open_labelled([make_features(change=change)], None)), 0.3, 3)[0]
    before: set[str] = set()
    for fraction in FRACTIONS:
        portion = fraction_of(rest, fraction, 3)
        assert len(portion) == max(3, int(fraction * len(rest) + 0.5))
        assert set(portion.labels.tolist()) == {0, 1, 2}
        assert before <= {*portion.ids}
        before = {*portion.ids}
    assert before == {*rest.ids}


def test_a_portion_knows_its_ids(make_features: Any) -> None:
    files = [make_features(f"{i}.h5", rows=20, offset=20 * i, seed=i) for i in range(2)]
    whole = open_labelled(files, None)
    assert [*Portion(whole).ids] == [f"{row:04d}" for row in range(40)]
    assert [*Portion(whole, np.array([3, 19, 20, 39])).ids] == ["0003", "0019", "0020", "0039"]


def test_shares_that_are_none_are_refused(make_features: Any) -> None:
    whole = open_labelled([make_features()], None)
    for fraction in (0.0, -0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--fraction is"):
            fraction_of(Portion(whole), fraction, 0)
        with pytest.raises(UsageError, match="--val-fraction is"):
            split_off(Portion(whole), fraction, 0)
    with pytest.raises(UsageError, match="--val-fraction is 1"):
        split_off(Portion(whole), 1.0, 0)
    few = Portion(whole, np.array([int(np.argmax(whole.labels == c)) for c in range(3)]))
    few = Portion(whole, np.sort(few.rows))  # type: ignore[type-var]
    with pytest.raises(InvalidInput, match="no class has two rows"):
        split_off(few, 0.5, 0)


def test_portions_are_read_in_one_pass_and_in_blocks_alike(make_features: Any) -> None:
    files = [make_features(f"{i}.h5", rows=5000, offset=5000 * i, seed=i) for i in range(2)]
    whole = open_labelled(files, None)
    matrix = np.concatenate([read_features(file).matrix() for file in files])
    training, validation = split_off(fraction_of(Portion(whole), 0.7, 0), 0.3, 0)
    assert training.rows is not None and validation.rows is not None
    both = gathered([training, validation])
    wanted = np.concatenate([matrix[training.rows], matrix[validation.rows]])
    np.testing.assert_array_equal(both, wanted)
    np.testing.assert_array_equal(np.concatenate(list(validation.blocks())), matrix[validation.rows])
    np.testing.assert_array_equal(gathered([Portion(whole)]), matrix)
    assert Path(files[0]).exists()
