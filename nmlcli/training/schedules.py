"""SCHEDULES: how the learning rate falls over a training; a light menu over timm's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScheduleKind:
    """settings: what timm's create_scheduler_v2 is given."""

    help: str
    settings: Mapping[str, Any]


SCHEDULES = {
    "cosine": ScheduleKind("half a cosine to 0", {"sched": "cosine"}),
    "linear": ScheduleKind("a line to 0", {"sched": "poly", "decay_rate": 1.0}),  # x to the power 1
    "constant": ScheduleKind("as it is", {"sched": "step", "decay_rate": 1.0, "decay_epochs": 1}),
}
