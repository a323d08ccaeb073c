"""Features as `embed` writes them, made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmlcli.data.samples import SetName
from nmlcli.products.features import Features
from nmlcli.products.formats import write_features
from nmlcli.products.labels import clean_facts
from nmlcli.provenance import Record, identity_of

MODEL = {
    "name": "resnet10t",
    "identity": "m" * 32,
    "architecture": "resnet10t",
    "layer": "pre_logits",
    "seed": 0,
    "objective": "supervised",
    "data": {"name": "shapes:train"},
    "noise": {"kind": "symmetric", "requested": 0.3, "realised": 0.31, "seed": 4},
}

MakeFeatures = Callable[..., str]


@pytest.fixture
def make_features(tmp_path: Path) -> MakeFeatures:
    """Write features of clustered classes; returns the file's name. Each argument changes one thing."""

    def make(
        file: str = "train.safetensors",
        *,
        name: str = "toy/photo:train",
        rows: int = 90,
        columns: int = 8,
        classes: tuple[str, ...] | None = ("ant", "bee", "cat"),
        seed: int = 0,
        offset: int = 0,
        labelled: bool = True,
        noise: Any = "clean",
        model: Any = "own",
        change: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> str:
        generator = np.random.default_rng(seed)
        count = len(classes or "abc")
        labels = generator.integers(0, count, rows)
        meaning = np.array([sum(map(ord, text)) % columns for text in classes or "abc"])
        features = generator.normal(size=(rows, columns)) * 0.3
        features[np.arange(rows), meaning[labels]] += 1.5
        features = features.astype(np.float32)
        if change is not None:
            change(features, labels)
        parts = SetName.parse(name)
        record = Record(
            kind="features",
            identity=identity_of("embed", 1, {}, [file, name, str(seed)]),
            command="embed",
            classes=classes,
            rows=rows,
            columns=columns,
            data={
                "name": name, "task": parts.task, "domain": parts.domain, "split": parts.split,
                "identity": identity_of("data", 1, {}, [name, str(seed)]),
            },
            model=MODEL if model == "own" else model,
            noise=clean_facts(rows) if noise == "clean" else noise,
        )  # fmt: skip
        path = str(tmp_path / file)
        write_features(
            path,
            Features(
                record=record,
                ids=[f"{offset + row:04d}" for row in range(rows)],
                labels=labels if labelled else None,
                clean_labels=None,
                dtype=np.dtype(np.float32),
                blocks=lambda size: (features[i : i + size] for i in range(0, rows, size)),
                source=path,
            ),
        )
        return path

    return make
