"""Which layer of a checkpoint is its classifier, by names and shapes alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.errors import InvalidInput
from nmlcli.products.formats import open_container
from nmlcli.products.stream import write_safetensors
from nmlcli.provenance import Record
from nmlcli.stages.classifier import own_classifier

CLASSES = ("ant", "bee", "cat")


def container(path: Path, arrays: Mapping[str, Any], **facts: Any) -> Any:
    told = {"classes": CLASSES, "model": {"objective": "supervised", "identity": "m" * 32}, **facts}
    with path.open("wb") as file:
        record = Record("checkpoint", "i" * 32, "pretrain", **told)
        write_safetensors(file, record, {k: np.asarray(v, dtype=np.float32) for k, v in arrays.items()})
    return open_container(str(path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("name", ["fc", "head.fc", "classifier", "head", "last_linear"])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1, 1)])
def test_timms_names_are_known(file: Path, name: str, shape: tuple[int, ...]) -> None:
    weight = np.arange(15.0).reshape(shape)
    stem = {"conv.weight": np.ones((3, 5)), "conv.bias": np.ones(3)}  # of as many rows, by chance
    head = own_classifier(
        container(file, {**stem, f"{name}.weight": weight, f"{name}.bias": [1, 2, 3]})
    )
    ((found, bias),) = head.layers
    assert np.array_equal(found, weight.reshape(3, 5)) and bias.tolist() == [1, 2, 3]
    assert (head.record.kind, head.record.columns, head.record.classes) == ("head", 5, CLASSES)
    assert head.record.model is not None and head.record.model["layer"] == "pre_logits"


def test_a_bias_may_lack(file: Path) -> None:
    ((_, bias),) = own_classifier(container(file, {"fc.weight": np.ones((3, 5))})).layers
    assert bias.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "arrays",
    [
        {"out.weight": np.ones((3, 5))},
        {"fc.weight": np.ones((4, 5))},
        {"fc.weight": np.ones((3, 5)), "fc.bias": np.ones(4)},
        {"fc.weight": np.ones((3, 5, 3, 3))},
        {"fc.weight": np.ones((3, 5)), "classifier.weight": np.ones((3, 5))},
        {"head.weight": np.ones((3, 5)), "head_dist.weight": np.ones((3, 5))},  # it averages the two
    ],
)
def test_what_cannot_be_told_is_refused(file: Path, arrays: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="cannot be told which layer"):
        own_classifier(container(file, arrays))


def test_networks_without_classes_and_broken_weights_are_refused(file: Path) -> None:
    with pytest.raises(InvalidInput, match="not trained as a classifier"):
        own_classifier(container(file, {"fc.weight": np.ones((3, 5))}, classes=None))
    with pytest.raises(InvalidInput, match="not finite"):
        own_classifier(container(file, {"fc.weight": np.full((3, 5), np.nan)}))


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({}, "ce"), ({"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0}, "ce"),
        ({"label_smoothing": 0.1}, "label-smoothing"), ({"mixup": 0.2}, None),
        ({"label_smoothing": 0.1, "cutmix": 1.0}, None),
    ],
)  # fmt: skip
def test_the_record_is_that_of_a_head(file: Path, options: Any, loss: str | None) -> None:
    noise = {"kind": "symmetric", "realised": 0.25}
    facts = {
        "data": {"name": "toy", "identity": "d", "samples": "s"}, "noise": noise, "options": options,
        "extra": {"validation": {"identity": "v", "samples": "w"}, "selected_by": "val_accuracy"},
    }  # fmt: skip
    weights = {"fc.weight": np.ones((3, 5))}
    record = own_classifier(container(file, weights, **facts)).record
    assert (record.noise, record.data) == (noise, facts["data"])
    wanted = {
        "method": "own", "loss": loss, "fraction": 1.0, "trained_on": ["d", "s"],
        "validated_on": ["v", "w"], "selected_by": "val_accuracy",
    }  # fmt: skip
    assert {key: record.extra[key] for key in wanted} == wanted
    bare = own_classifier(container(file, weights)).record.extra
    assert (bare["trained_on"], bare["validated_on"], bare["selected_by"]) == ([], [], None)
