"""The loop against a transcription, its order of calls, and what it refuses."""

import contextlib
import math

import pytest
import torch

from nmlcli.training.loop import NotFinite, Piece, Progress, fit
from nmlcli.training.optim import cosine


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 3, generator=generator)
    targets = torch.randn(12, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(3))
    return inputs, targets, weight


def test_fit_is_gradient_descent_with_the_schedule():
    inputs, targets, weight = problem()
    optimiser = torch.optim.SGD([weight], lr=0.1)

    def objective(batch):
        rows = slice(batch, batch + 4)
        return {"loss": ((inputs[rows] @ weight - targets[rows]) ** 2).mean()}

    seen = []
    fit(
        objective,
        lambda epoch: [0, 4, 8],
        optimiser,
        schedule=cosine(optimiser, 6),
        epochs=2,
        steps_per_epoch=3,
        after_epoch=lambda epoch, means: seen.append((epoch, means["loss"])),
    )
    x, y, w, losses = inputs.double().numpy(), targets.double().numpy(), [0.0] * 3, []
    for step in range(6):
        rows = range(4 * (step % 3), 4 * (step % 3) + 4)
        rate = 0.05 * (1 + math.cos(math.pi * step / 6))
        residuals = [sum(x[i][d] * w[d] for d in range(3)) - y[i] for i in rows]
        losses.append(sum(r * r for r in residuals) / 4)
        for d in range(3):
            w[d] -= rate * sum(2 * r * x[i][d] for r, i in zip(residuals, rows, strict=True)) / 4
    assert weight.tolist() == pytest.approx(w, abs=1e-6)
    assert [epoch for epoch, _ in seen] == [0, 1]
    assert [loss for _, loss in seen] == pytest.approx(
        [sum(losses[:3]) / 3, sum(losses[3:]) / 3], abs=1e-6
    )


def test_a_training_that_goes_on_takes_the_steps_that_are_left_and_shows_the_same_means():
    """Stopped before any step and at any epoch's end, with the state through its dict."""
    values = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) / 3

    def run(progress, stop=None):
        steps, epochs = [], []

        def after_epoch(epoch, means):
            if progress.step == stop:
                raise Interrupted
            epochs.append((epoch, means))

        def schedule(step):
            if step == stop:
                raise Interrupted
            steps.append(step)

        weight = torch.nn.Parameter(torch.zeros(()))
        optimiser = torch.optim.SGD([weight], lr=0.1)
        with contextlib.suppress(Interrupted):
            fit(
                lambda value: {"loss": weight * 0 + value, "other": value / 7},
                lambda epoch: values[epoch, progress.step - 5 * epoch :],
                optimiser,
                schedule=schedule,
                epochs=3,
                steps_per_epoch=5,
                progress=progress,
                after_epoch=after_epoch,
            )
        return steps, epochs

    whole = run(Progress())
    assert whole[0] == [*range(15)]
    assert [epoch for epoch, _ in whole[1]] == [0, 1, 2]
    for stop in range(16):
        first, second = Progress(), Progress()
        before = run(first, stop)
        second.load_state_dict(first.state_dict())
        after = run(second)
        assert (before[0] + after[0], before[1] + after[1]) == whole, stop


class Interrupted(Exception):  # noqa: N818
    pass


def test_a_step_is_counted_and_followed_up_within_its_surroundings():
    _, _, weight = problem()
    progress, events = Progress(), []

    @contextlib.contextmanager
    def around_step():
        events.append(("in", progress.step))
        yield
        events.append(("out", progress.step))

    fit(
        lambda batch: {"loss": (weight**2).sum()},
        lambda epoch: range(2),
        torch.optim.SGD([weight], lr=0.1),
        schedule=lambda step: events.append(("schedule", step)),
        epochs=1,
        steps_per_epoch=2,
        progress=progress,
        around_step=around_step,
        after_step=lambda step: events.append(("after", step)),
    )
    each = [[("in", k), ("schedule", k), ("after", k), ("out", k + 1)] for k in (0, 1)]
    assert events == each[0] + each[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step(bad):
    _, _, weight = problem()
    with pytest.raises(NotFinite, match=r"step 7 is (nan|inf)"):
        fit(
            lambda batch: {"loss": weight.sum() * 0 + (bad if batch == 7 else 1.0)},
            lambda epoch: range(5 * epoch, 5 * epoch + 5),
            torch.optim.SGD([weight], lr=0.1),
            schedule=lambda step: None,
            epochs=2,
            steps_per_epoch=5,
        )


def test_clip_bounds_the_gradient():
    _, _, weight = problem()
    fit(
        lambda batch: {"loss": 100.0 * weight.sum()},
        lambda epoch: [0],
        torch.optim.SGD([weight], lr=1.0),
        schedule=lambda step: None,
        epochs=1,
        steps_per_epoch=1,
        clip=2.0,
    )
    assert weight.norm().item() == pytest.approx(2.0, rel=1e-4)


def test_progress_carries_the_means_and_ends_complete():
    _, _, weight = problem()
    calls = []
    fit(
        lambda batch: {"loss": weight.sum() + 2.0, "accuracy": torch.tensor(float(batch))},
        lambda epoch: [0, 1],
        torch.optim.SGD([weight], lr=0.0),
        schedule=lambda step: None,
        epochs=2,
        steps_per_epoch=2,
        advance=lambda done, total, **values: calls.append((done, total, values)),
    )
    assert calls[-1] == (4, 4, {"loss": 2.0, "accuracy": 0.5})


def test_pieces_of_a_batch_are_the_whole_by_their_shares():
    """Unequal ones; gradient, norm and every scalar are those of the batch, in one step of it."""
    inputs, targets, _ = problem()

    def run(pieces):
        weight = torch.nn.Parameter(torch.ones(3))
        entered, steps = [], []

        def objective(rows):
            loss = ((inputs[rows] @ weight - targets[rows]) ** 2).mean()
            return {"loss": loss, "first": inputs[rows, 0].mean()}

        @contextlib.contextmanager
        def around():
            entered.append("in")
            yield
            entered.append("out")

        def split(rows):
            yield Piece(rows[:3], 3 / 8, around())
            yield Piece(rows[3:4], 1 / 8)
            yield Piece(rows[4:], 4 / 8)

        means = []
        fit(
            objective,
            lambda epoch: [list(range(8)), list(range(4, 12))],
            torch.optim.SGD([weight], lr=0.1),
            schedule=lambda step: None,
            epochs=1,
            steps_per_epoch=2,
            pieces=split if pieces else None,
            clip=0.7,
            after_step=steps.append,
            after_epoch=lambda epoch, found: means.append(found),
        )
        assert entered == (["in", "out"] * 2 if pieces else [])
        assert steps == [0, 1]
        return weight, means[0]

    (whole, wanted), (parts, seen) = run(False), run(True)
    assert parts.tolist() == pytest.approx(whole.tolist(), abs=1e-6)
    assert seen == pytest.approx(wanted, abs=1e-6)


def test_scalars_are_those_of_all_processes():
    progress = Progress(shared=lambda values: {name: 2 * value for name, value in values.items()})
    progress.add({"loss": torch.tensor(1.5)})
    assert progress.means() == {"loss": 3.0}
