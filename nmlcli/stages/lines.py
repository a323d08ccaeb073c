"""The flat keys of result lines that say what was measured: the set, the network, its pre-training."""

from typing import Any

from nmlcli.provenance import Facts, Record


def provenance_keys(record: Record) -> dict[str, Any]:
    """What the record of features knows of their set and network, as keys of a result line.

    None is not known or does not apply. pretrain_* are the set and the label noise that the network
    was trained with; they stay those of the pre-training where the network was tuned since.
    """
    data, model = record.data or {}, record.model or {}
    noise: Facts = model.get("noise") or {}
    return {
        "task": data.get("task"),
        "domain": data.get("domain"),
        "split": data.get("split"),
        "backbone": model.get("architecture") or model.get("name"),
        "backbone_identity": model.get("identity"),
        "backbone_seed": model.get("seed"),
        "objective": model.get("objective"),
        "pretrain_set": (model.get("data") or {}).get("name"),
        "pretrain_noise": noise.get("kind"),
        "pretrain_ratio": noise.get("requested"),
        "pretrain_realised": noise.get("realised"),
        "pretrain_noise_seed": noise.get("seed"),
        "features": record.identity,
    }
