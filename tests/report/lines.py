"""Made-up result lines for the tests of the report."""

from typing import Any


def backbone(ratio: float | None, seed: int = 0) -> dict[str, Any]:
    """The provenance keys of a backbone pre-trained with this share of noise."""
    return {
        "backbone": "resnet10t", "backbone_identity": f"b{ratio}-{seed}", "backbone_seed": seed,
        "objective": "supervised", "pretrain_set": "shapes:train",
        "pretrain_noise": None if ratio is None else "symmetric" if ratio else "none",
        "pretrain_ratio": ratio, "pretrain_realised": ratio and ratio - 0.001,
    }  # fmt: skip


def result(accuracy: float, ratio: float | None = 0.0, seed: int = 0, **keys: Any) -> dict[str, Any]:
    """A result line; its interval is two points to each side."""
    line = {
        "kind": "result", "task": "textures", "domain": None, "split": "test", "role": "id",
        "seen": False,
        "method": "lp", "preset": "paper", "options": {}, "seed": 0, "train_set": "textures:train",
        "accuracy": accuracy, "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02,
    }  # fmt: skip
    made = {**line, **backbone(ratio, seed), **keys}
    return {**made, "head": f"h{made['method']}{made['seed']}{made['backbone_identity']}"}
