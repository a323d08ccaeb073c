"""The linear probe: beside scikit-learn and slow transcriptions, rows in other blocks, bad input."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from nmlcli.numerics import logistic
from nmlcli.numerics.lbfgs import minimise
from nmlcli.numerics.logistic import Fitted, fit, path, usual_l2s
from nmlcli.numerics.rows import ROWS, Blocks, Rows, held_rows, survey

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Labels = NDArray[np.int64]


def drawn(
    rows: int, columns: int, classes: int, seed: int = 0, power: float = 0.5, mean: float = 0.0
) -> tuple[Float32, Labels]:
    """Classes that overlap, in features whose variances fall as a power, turned."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=rows)
    centres = 0.4 * generator.normal(size=(classes, columns))
    turn = np.linalg.qr(generator.normal(size=(columns, columns)))[0]
    scale = np.arange(1, columns + 1.0) ** -power
    features = (generator.normal(size=(rows, columns)) + centres[labels]) * scale @ turn + mean
    return features.astype(np.float32), labels


def objective(features: Float32, labels: Labels, fitted: Fitted) -> float:
    """f, naively, in float64."""
    logits = features.astype(np.float64) @ fitted.weight.T + fitted.bias
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return float(losses.mean() + fitted.l2 / 2 * (fitted.weight**2).sum())


def in_pieces(features: Float32, labels: Labels, classes: int, sizes: list[int]) -> Rows:
    """Rows that come in blocks of these sizes, over and over, as copies."""

    def blocks() -> Iterator[tuple[Float32, Labels]]:
        start, turn = 0, 0
        while start < len(labels):
            stop = start + sizes[turn % len(sizes)]
            yield features[start:stop].copy(), labels[start:stop].copy()
            start, turn = stop, turn + 1

    return Rows(*features.shape, classes, blocks)


def same(one: Fitted, other: Fitted) -> bool:
    return one.weight.tobytes() == other.weight.tobytes() and one.bias.tobytes() == other.bias.tobytes()


@pytest.mark.parametrize(
    ("rows", "columns", "classes", "l2", "mean"),
    [
        (3000, 40, 10, 1e-2, 0.0),
        (3000, 40, 10, 1e-3, 2.0),
        (2500, 24, 30, 1e-3, 0.0),
        (60, 100, 4, 1e-2, 0.0),  # more columns than rows
        (700, 1, 3, 1e-3, 0.0),
        (900, 12, 2, 1e-3, 1.0),  # two classes: still multinomial
    ],
)
def test_the_objective_is_that_of_scikit_learn(
    rows: int, columns: int, classes: int, l2: float, mean: float
) -> None:
    features, labels = drawn(rows, columns, classes, mean=mean)
    ours = fit(held_rows(features, labels, classes), l2)
    model = LogisticRegression(C=1 / (l2 * rows), tol=1e-8, max_iter=20_000)
    model.fit(features.astype(np.float64), labels)
    weight, bias = model.coef_, model.intercept_
    if classes == 2:  # one row of logits there, whose penalty two halves share
        model = LogisticRegression(C=2 / (l2 * rows), tol=1e-8, max_iter=20_000)
        model.fit(features.astype(np.float64), labels)
        weight = np.vstack((-model.coef_, model.coef_)) / 2
        bias = np.concatenate((-model.intercept_, model.intercept_)) / 2
    theirs = objective(features, labels, Fitted(l2, weight, bias, 0, 0, 0, 0, ""))
    assert ours.converged and ours.gradient <= 1e-5
    assert objective(features, labels, ours) == pytest.approx(theirs, rel=1e-6)
    assert ours.objective == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("mean", [0.0, 100.0])  # the second is taken off the rows before the products
def test_value_and_gradient_are_those_of_a_transcription(mean: float) -> None:
    features, labels = drawn(500, 7, 4, mean=mean)
    problem = logistic._Problem(held_rows(features, labels, 4))
    facts = problem._facts
    assert (facts.shift is None) == (mean == 0)
    point = np.random.default_rng(1).normal(size=(4, 8))
    value, gradient = problem._evaluate(point, 0.3)
    centred = (features.astype(np.float64) - facts.mean) / facts.scale
    logits = centred @ point[:, :-1].T + point[:, -1]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = np.eye(4)[labels]
    expected = np.hstack(((shares - own).T @ centred, (shares - own).sum(axis=0)[:, None])) / 500
    expected[:, :-1] += 0.3 * point[:, :-1]
    loss = -np.log((shares * own).sum(axis=1)).mean() + 0.15 * (point[:, :-1] ** 2).sum()
    assert value == pytest.approx(loss, rel=1e-6)
    assert gradient.reshape(4, 8) == pytest.approx(expected, abs=2e-6)


def test_the_survey_is_that_of_a_transcription() -> None:
    features, labels = drawn(5000, 9, 3, mean=2.0)
    for whole in (True, False):
        facts = survey(Blocks(held_rows(features, labels, 3)), whole)
        exact = features.astype(np.float64)
        assert facts.mean == pytest.approx(exact.mean(axis=0), rel=1e-5)
        assert facts.scale == pytest.approx(exact.var(axis=0).mean() ** 0.5, rel=1e-5)
        assert facts.shares == pytest.approx(np.bincount(labels) / 5000)
        sample = exact[:: 5000 // 36] if whole else exact
        spread = np.cov(sample.T, bias=True) / facts.scale**2
        assert facts.spread == pytest.approx(spread if whole else np.diag(spread), abs=1e-4)


@given(sizes=st.lists(st.integers(1, 3 * ROWS), min_size=1, max_size=3))
@settings(max_examples=8, deadline=None)
def test_no_bit_depends_on_how_rows_arrive(sizes: list[int]) -> None:
    features, labels = drawn(2 * ROWS + 77, 6, 3)
    if max(sizes) < 50:
        sizes = [*sizes, 999]
    whole = fit(held_rows(features, labels, 3), 1e-3)
    assert same(whole, fit(in_pieces(features, labels, 3, sizes), 1e-3))
    strided = np.asfortranarray(features)
    assert same(whole, fit(held_rows(strided, labels, 3), 1e-3))


def test_one_row_at_a_time_and_a_mean_that_is_taken_off() -> None:
    features, labels = drawn(300, 6, 3, mean=50.0)
    whole = fit(held_rows(features, labels, 3), 1e-3)
    assert same(whole, fit(in_pieces(features, labels, 3, [1]), 1e-3))
    assert same(whole, fit(held_rows(features, labels, 3), 1e-3))


def test_a_path_is_as_good_as_cold_fits_for_fewer_evaluations() -> None:
    features, labels = drawn(3000, 60, 10, power=1)
    rows = held_rows(features, labels, 10)
    values = usual_l2s(float(np.square(features).mean()))
    warm = list(path(rows, reversed(values)))
    cold = [fit(rows, l2) for l2 in values]
    assert [each.l2 for each in warm] == sorted(values, reverse=True)
    for one, other in zip(warm, cold, strict=True):
        assert one.converged and other.converged
        assert objective(features, labels, one) == pytest.approx(
            objective(features, labels, other), rel=1e-6
        )
    assert sum(each.evaluations for each in warm) < sum(each.evaluations for each in cold)


def test_a_fit_starts_where_it_is_told() -> None:
    features, labels = drawn(1000, 20, 5, mean=3.0)
    rows = held_rows(features, labels, 5)
    first = fit(rows, 1e-2)
    again = fit(rows, 1e-2, first)
    assert again.evaluations <= 3 and again.iterations <= 1
    with pytest.raises(ValueError, match=r"start is \(5, 20\), not \(6, 20\)"):
        fit(held_rows(features, labels, 6), 1e-2, first)


@pytest.mark.parametrize("unit", [2.0**-12, 2.0**10])
def test_the_unit_of_features_changes_nothing(unit: float) -> None:
    features, labels = drawn(800, 10, 4)
    one = fit(held_rows(features, labels, 4), 1e-3)
    other = fit(held_rows(features * np.float32(unit), labels, 4), 1e-3 * unit**2)
    assert other.objective == one.objective and other.evaluations == one.evaluations
    assert (other.weight * unit == one.weight).all()


def test_variances_do_where_a_covariance_costs_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = drawn(2000, 50, 5, power=1)
    rows = held_rows(features, labels, 5)
    whole = fit(rows, 1e-3)
    monkeypatch.setattr(logistic, "WORTH", 0.0)
    plain = fit(rows, 1e-3)
    assert plain.objective == pytest.approx(whole.objective, rel=1e-6)
    assert plain.evaluations > 2 * whole.evaluations


def test_classes_without_rows_are_never_predicted() -> None:
    features, labels = drawn(500, 8, 3)
    few = fit(held_rows(features, labels, 3), 1e-2)
    more = fit(held_rows(features, labels, 5), 1e-2)
    assert more.converged and more.objective == pytest.approx(few.objective, rel=1e-6)
    logits = features @ more.weight.T + more.bias
    assert logits.argmax(axis=1).max() < 3


def test_one_class_one_row_and_constant_features() -> None:
    features, labels = drawn(50, 4, 2)
    one = fit(held_rows(features, labels * 0, 1), 1e-2)
    assert one.converged and one.objective == 0
    single = fit(held_rows(features[:1], labels[:1], 2), 1e-2)
    assert single.converged and single.objective < 1e-6
    constant = fit(held_rows(np.full((50, 4), 7, dtype=np.float32), labels, 2), 1e-2)
    shares = np.bincount(labels) / 50
    assert constant.converged and constant.objective == pytest.approx(
        -shares @ np.log(shares), rel=1e-6
    )
    half = np.hstack((features, np.full((50, 2), 3, dtype=np.float32)))
    assert fit(held_rows(half, labels, 2), 1e-2).converged


def test_huge_features_and_starts_do_not_overflow() -> None:
    features, labels = drawn(200, 5, 3)
    rows = held_rows(features, labels, 3)
    far = Fitted(1e-2, np.full((3, 5), 1e4) * np.arange(3)[:, None], np.zeros(3), 0, 0, 0, 0, "")
    assert fit(rows, 1e-2, far).objective == pytest.approx(fit(rows, 1e-2).objective, rel=1e-6)
    huge = fit(held_rows(features * np.float32(1e15), labels, 3), 1e28)
    assert huge.converged and np.isfinite(huge.objective)
    lost = Fitted(1e-2, np.full((3, 5), 1e300) * np.arange(3)[:, None], np.zeros(3), 0, 0, 0, 0, "")
    with pytest.raises(ValueError, match="starts where the function is"):
        fit(rows, 1e-2, lost)


def test_separable_rows_without_a_penalty_end_unconverged() -> None:
    features = np.array([[-2], [-1], [1], [2]], dtype=np.float32)
    found = fit(held_rows(features, np.array([0, 0, 1, 1]), 2), 0.0, iterations=30)
    assert not found.converged and found.reason in ("iterations", "precision")
    assert found.iterations <= 30 and np.isfinite(found.weight).all() and found.objective < 1e-3


def test_what_float32_cannot_reach_ends_by_saying_so() -> None:
    features, labels = drawn(2000, 20, 5)
    found = fit(held_rows(features, labels, 5), 1e-3, tolerance=1e-12)
    assert found.reason == "precision" and found.gradient < 1e-5 and found.evaluations < 300


def test_the_search_finds_the_minimum_of_a_quadratic() -> None:
    generator = np.random.default_rng(0)
    root = generator.normal(size=(12, 12))
    matrix, goal = root @ root.T + np.eye(12), generator.normal(size=12)

    def evaluate(point: Float64) -> tuple[float, Float64]:
        return float((point - goal) @ matrix @ (point - goal) / 2) + 1, matrix @ (point - goal)

    found = minimise(evaluate, np.zeros(12), 1e-8, 100)
    assert found.reason == "converged" and found.point == pytest.approx(goal, abs=1e-6)
    inverse = np.linalg.inv(matrix)
    assert minimise(evaluate, np.zeros(12), 1e-8, 100, lambda v: inverse @ v).iterations == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    features, labels = drawn(300, 4, 3)
    features[123, 2] = value
    with pytest.raises(ValueError, match="rows 0 to 299 hold numbers that are not finite"):
        fit(held_rows(features, labels, 3), 1e-2)


def test_rows_that_are_not_what_they_say_are_refused() -> None:
    features, labels = drawn(30, 4, 3)
    with pytest.raises(ValueError, match="labels 0 to 2 of 2 classes"):
        fit(held_rows(features, labels, 2), 1e-2)
    with pytest.raises(ValueError, match="labels -1 to"):
        fit(held_rows(features, labels - 1, 3), 1e-2)
    with pytest.raises(ValueError, match="do not match"):
        held_rows(features, labels[1:], 3)
    with pytest.raises(ValueError, match="30 rows, not 31"):
        fit(Rows(31, 4, 3, lambda: iter([(features, labels)])), 1e-2)
    with pytest.raises(ValueError, match="after 0 of 29 rows"):
        fit(Rows(29, 4, 3, lambda: iter([(features, labels)])), 1e-2)
    with pytest.raises(ValueError, match="0 rows × 4 of 3 classes"):
        fit(held_rows(features[:0], labels[:0], 3), 1e-2)
    for l2 in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="l2 is"):
            fit(held_rows(features, labels, 3), l2)


def test_the_usual_values_follow_the_scale() -> None:
    values = usual_l2s(0.25)
    assert len(values) == 8 and values[0] == pytest.approx(2.5) and values[-1] == pytest.approx(2.5e-7)
    for scale in (0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="have no scale"):
            usual_l2s(scale)
