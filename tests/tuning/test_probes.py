"""Linear probes tuned side by side against each tuned alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nmlcli.training.loop import NotFinite
from nmlcli.tuning.criteria import LOSSES
from nmlcli.tuning.heads import TrainableHead, train
from nmlcli.tuning.methods import settle
from nmlcli.tuning.presets import PRESETS, Settings
from nmlcli.tuning.probes import Probe, together, train_together

D, C, N = 12, 4, 41  # batches of 16, 16, 9
Run = tuple[Settings, int]


def data() -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, C, N)
    features = generator.normal(size=(N, D)) + np.eye(C, D)[labels]
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def settings_of(method: str = "lp", preset: str = "paper", **knobs: Any) -> Settings:
    return settle(method, preset, {"epochs": 3, "batch_size": 16, **knobs})[0]


def alone(run: Run, transition: Any = None) -> tuple[TrainableHead, list[dict[str, float]]]:
    head, means = TrainableHead(D, C, *run), []
    train(
        head, *data(), *run, transition=transition,
        after_epoch=lambda epoch, each: means.append(dict(each)),
    )  # fmt: skip
    return head, means


def side_by_side(
    runs: list[Run], transition: Any = None, advance: Any = None
) -> tuple[list[TrainableHead], list[list[dict[str, float]]]]:
    probes = [Probe(TrainableHead(D, C, *run), *run) for run in runs]
    means: list[list[dict[str, float]]] = [[] for _ in runs]

    def after_epoch(epoch: int, each: Any) -> None:
        for found, own in zip(means, each, strict=True):
            assert len(found) == epoch
            found.append(dict(own))

    shown = {} if advance is None else {"advance": advance}
    train_together(probes, *data(), transition=transition, after_epoch=after_epoch, **shown)
    return [probe.head for probe in probes], means


def assert_bytes(one: TrainableHead, other: TrainableHead) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("preset", PRESETS)
def test_probes_of_several_seeds_are_those_tuned_alone_to_the_byte(preset: str) -> None:
    runs = [(settings_of(preset=preset), seed) for seed in (0, 1, 5)]
    heads, means = side_by_side(runs)
    for run, head, told in zip(runs, heads, means, strict=True):
        same, its_means = alone(run)
        assert_bytes(head, same)
        assert told == its_means


def test_probes_of_a_grid_are_those_tuned_alone() -> None:
    knobs = [{"lr": 0.1}, {"lr": 0.003, "weight_decay": 0.5}, {"lr": 0.003}, {"loss": "gce"}]
    runs = [(settings_of(**each), seed) for each in knobs for seed in (0, 1)]
    heads, means = side_by_side(runs)
    for run, head, told in zip(runs, heads, means, strict=True):
        same, its_means = alone(run)
        torch.testing.assert_close(head.classifier.weight, same.classifier.weight, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(head.classifier.bias, same.classifier.bias, rtol=1e-3, atol=1e-5)
        for one, other in zip(told, its_means, strict=True):
            assert one == pytest.approx(other, rel=1e-4)
    apart = [float((a.classifier.weight - b.classifier.weight).detach().abs().max())
             for n, a in enumerate(heads) for b in heads[:n]]  # fmt: skip
    assert min(apart) > 1e-3  # so that none could stand for another


@pytest.mark.parametrize("loss", LOSSES)
def test_each_has_a_loss_of_its_own_with_its_state(loss: str) -> None:
    transition = np.full((C, C), 0.1) + np.eye(C) * 0.6
    runs = [(settings_of(loss=loss), 0), (settings_of(), 1), (settings_of(loss=loss), 2)]
    heads, means = side_by_side(runs, transition)
    for run, head, told in zip(runs, heads, means, strict=True):
        same, its_means = alone(run, transition)
        assert_bytes(head, same)
        assert told == its_means


def test_one_that_explodes_does_not_move_the_others() -> None:
    runs = [(settings_of(lr=0.1), 0), (settings_of(lr=1e38), 0), (settings_of(lr=0.01), 0)]
    heads, means = side_by_side(runs)
    assert not np.isfinite([each["loss"] for each in means[1]]).all()
    for kept in (0, 2):
        same, its_means = alone(runs[kept])
        torch.testing.assert_close(heads[kept].classifier.weight, same.classifier.weight)
        assert means[kept][-1] == pytest.approx(its_means[-1], rel=1e-5)


def test_the_advance_counts_the_steps_of_all_and_shows_their_mean_loss() -> None:
    told: list[Any] = []
    runs = [(settings_of(lr=lr), 0) for lr in (0.1, 0.01)]
    means = side_by_side(runs, advance=lambda *at, **values: told.append((*at, values["loss"])))[1]
    assert told[-1][:2] == (18, 18)
    assert told[-1][2] == pytest.approx(np.mean([each[-1]["loss"] for each in means]))


def cut(settings: list[Settings], rows: int = N, width: int = D, classes: int = C) -> list[int]:
    parts = [range(len(settings))[part] for part in together(settings, rows, width, classes)]
    assert [number for part in parts for number in part] == [*range(len(settings))]
    return [len(part) for part in parts]


def test_runs_are_of_linear_probes_with_equal_batches_and_epochs() -> None:
    probe, mlp = settings_of(), settings_of("mlp")
    assert cut([probe]) == [1]
    mixed = [probe, settings_of(lr=1.0), settings_of(loss="gce"), mlp, mlp, probe, probe]
    assert cut(mixed) == [3, 1, 1, 2]
    others = [
        settings_of(epochs=4),
        settings_of(batch_size=8),
        settings_of(preset="paper-text", epochs=3),
    ]
    assert cut([probe, *others, probe]) == [1] * 5


def test_large_classifiers_gain_nothing_and_many_small_ones_are_cut() -> None:
    probes = [settings_of()] * 5
    assert cut(probes, width=768, classes=100) == [1] * 5
    assert cut(probes, width=700, classes=90) == [5]
    assert cut([settings_of()] * 40, width=700, classes=90) == [16, 16, 8]


def test_what_losses_remember_of_rows_is_bounded() -> None:
    remembering = [settings_of(loss="elr")] * 5
    assert cut(remembering) == [5]
    assert cut(remembering, rows=1 << 23) == [2, 2, 1]
    assert cut(remembering, rows=1 << 26) == [1] * 5
    assert cut([settings_of()] * 5, rows=1 << 26) == [5]
    assert cut([settings_of(), remembering[0], settings_of()]) == [1, 1, 1]


def test_losses_whose_sum_overflows_are_finite_each() -> None:
    heads, means = side_by_side([(settings_of(lr=3e36), seed) for seed in range(90)])
    assert all(np.isfinite(each["loss"]) for told in means for each in told)
    assert sum(told[0]["loss"] for told in means) > float(np.finfo(np.float32).max)
    assert_bytes(heads[7], alone((settings_of(lr=3e36), 7))[0])


def test_a_training_ends_where_no_probe_is_left() -> None:
    told: list[int] = []
    probes = [
        Probe(TrainableHead(D, C, settings_of(lr=1e39), s), settings_of(lr=1e39), s) for s in (0, 1)
    ]
    with pytest.raises(NotFinite, match="no loss of epoch 1 is finite"):
        train_together(probes, *data(), after_epoch=lambda epoch, _: told.append(epoch))
    assert told == [0]


def test_the_mean_that_is_shown_is_of_those_that_are_left() -> None:
    told: list[Any] = []
    runs = [(settings_of(lr=lr), 0) for lr in (0.1, 1e39, 0.01)]
    means = side_by_side(runs, advance=lambda *at, **values: told.append(values["loss"]))[1]
    assert told[-1] == pytest.approx((means[0][-1]["loss"] + means[2][-1]["loss"]) / 2)
