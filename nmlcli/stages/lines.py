"""What a result line says of a head and a set before anything is measured: the interface's keys."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nmlcli.data.samples import SetName
from nmlcli.errors import UsageError
from nmlcli.products.features import Features
from nmlcli.products.head import Head
from nmlcli.provenance import Record, identity_of
from nmlcli.stages.inputs import provenance_keys
from nmlcli.stages.scoring import MEASURED_KEYS, Line

REVISION = 2

# Keys that only some lines have, beside the ends of intervals.
_OPTIONAL = {"class_map", "resamplings", "versus", "difference", "mcnemar", "class", "precision", "f1"}


def result_line(
    features: Features, name: SetName, head: Head, classes_scored: int, settings: Mapping[str, Any],
    inputs: tuple[str, ...], tags: Mapping[str, str],
) -> Line:  # fmt: skip
    """The result line of a head on a set, with None for what is to be measured.

    classes_scored: how many classes compete. settings: what was asked for that changes the line, for
    its identity; inputs: identities of what else the line is made of. Raises UsageError for a tag that
    would hide a key.
    """
    record = head.record
    tuned, trained_on, noise = record.extra, record.data or {}, record.noise or {}
    set_noise = features.record.noise or {}
    differing = tuned.get("options") or {}
    known = {"name": str(name), "tags": dict(tags), **settings}
    made_of = [record.identity, features.record.identity, *inputs]
    line = {
        "kind": "result",
        **asdict(name),
        "role": _role(name, record),
        "rows": features.rows,
        "set_noise": set_noise.get("kind"),
        "set_realised": set_noise.get("realised"),
        "classes_scored": classes_scored,
        "restricted": settings["restrict"],
        "seen": seen(features.record, record),
        **{key: tuned.get(key) for key in ("method", "preset", "loss", "scale")},
        "options": ",".join(f"{key}={value}" for key, value in sorted(differing.items())),
        "seed": tuned.get("seed"),
        "fraction": tuned.get("fraction", 1.0),
        "selected_by": tuned.get("selected_by"),
        **dict.fromkeys(MEASURED_KEYS),
        **_network_keys(features.record, record),
        "train_set": trained_on.get("name"),
        "train_noise": noise.get("kind"),
        "train_ratio": noise.get("requested"),
        "train_realised": noise.get("realised"),
        "head": record.identity,
        "features": features.record.identity,
        "identity": identity_of("eval", REVISION, known, made_of),
    }
    for key in sorted(tags.keys() - {"role"}):
        if key in line or key in _OPTIONAL or key.endswith(("_low", "_high")):
            raise UsageError(f"--tag {key}: lines have that key", "take another name")
    return {**line, **tags}


def _network_keys(features: Record, head: Record) -> Line:
    """The keys of the network and its pre-training, from the features, else from the head."""
    told, tuned_for = provenance_keys(features), provenance_keys(head)
    keys = [key for key in told if key not in ("task", "domain", "split", "features")]
    return {key: tuned_for[key] if told[key] is None else told[key] for key in keys}


def _role(name: SetName, head: Record) -> str | None:
    """id for a task and domain that the head was trained on, ood for another domain of the task.

    None where it cannot be told: for other tasks, and where only one of the two has a domain.
    """
    data = head.data or {}
    domains = head.extra.get("domains") or {data.get("task"): [data.get("domain")]}
    known = domains.get(name.task, ())
    if name.domain in known:
        return "id"
    return None if not known or name.domain is None or None in known else "ood"


def seen(features: Record, head: Record) -> bool:
    """Whether the head was trained or chosen on the set, under whatever labels; being watched on it is
    neither. Parts of a set are not recognised."""
    used = set(head.extra.get("trained_on") or ())
    if head.extra.get("selected_by") is not None:
        used |= set(head.extra.get("validated_on") or ())
    data = features.data or {}
    return bool(used & {features.identity, data.get("identity"), data.get("samples")})
