"""How a network is pre-trained: the options, and what an objective has by itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nmlcli.data.sources import SourceOptions
from nmlcli.errors import UsageError
from nmlcli.stages.objectives import OBJECTIVES
from nmlcli.training.augmentation import Strength

# What does not change the weights.
_UNTOLD = ("source", "validation", "workers", "resume", "save_every", "log", "reuse", "asked")


@dataclass(frozen=True)
class PretrainOptions:
    """How to train; `settled` fills in what an objective has by itself. None: size as the network has
    it; lr 0.1 for sgd, else 0.001; augment by size; momentum, betas and eps as the optimiser has them.

    objective: a row of OBJECTIVES. source: how the set is read. validation: a set that measures are
    told of after each epoch. batch_size: images of a step of all processes; micro_batch: of those, how
    many are computed at a time. val_size: of images after the training, None: as in it. ema: the decay
    of the moving average of the weights that is kept in their place. save_every: minutes between two
    states that a training can go on from. log: a file of JSON Lines. asked: fields of strength that
    were given by name, and so have to have an effect.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    objective: str = "supervised"
    validation: str | None = None
    epochs: int = 30
    batch_size: int = 128
    micro_batch: int | None = None
    opt: str = "sgd"
    lr: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    sched: str = "cosine"
    warmup_epochs: int = 0
    warmup_steps: int | None = None
    weight_decay: float = 5e-4
    momentum: float | None = None
    clip: float | None = None
    size: int | None = None
    val_size: int | None = None
    augment: str | None = None
    strength: Strength = field(default_factory=Strength)
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    loss: str = "ce"
    drop_path: float = 0.0
    ema: float | None = None
    precision: str = "fp32"
    compile: bool = False
    seed: int = 0
    workers: int = 2
    resume: bool = False
    save_every: float = 10.0
    log: str | None = None
    reuse: bool = False
    asked: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """The learning rate, as given or by the optimiser."""
        return self.lr if self.lr is not None else (0.1 if self.opt in ("sgd", "momentum") else 1e-3)

    def facts(self) -> dict[str, Any]:
        """The options that change the result."""
        others = [row.takes for name, row in OBJECTIVES.items() if name != self.objective]
        left_out = {*_UNTOLD}.union(*others)
        return {name: v for name, v in asdict(self).items() if name not in left_out} | {"lr": self.rate}

    def crops(self) -> str:
        """The options asked for that only crops have, or only changed images; else nothing."""
        looked_at = (*_CROPS, *(["hflip"] if self.augment == "none" else []))
        return ", ".join(f"--{_option(name)}" for name in looked_at if name in self.asked)


_CROPS = ("scale", "color_jitter", "policy", "reprob")
_STRENGTHS = {each.name: each.name for each in fields(Strength)} | {"auto_augment": "policy"}


def _option(field: str) -> str:
    """The option that gives a field of Strength, without its dashes."""
    return {"policy": "auto-augment"}.get(field, field.replace("_", "-"))


def settled(given: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> PretrainOptions:
    """Options from those that are given, by their names on the command line, else from the usual ones
    of a recipe, else from the objective's own.

    Raises UsageError for one that the objective does not have.
    """
    known = {**(usual or {}), **given}
    objective = str(known.get("objective", "supervised"))
    for other, row in OBJECTIVES.items():
        strange = [name for name in known if other != objective and name in row.takes]
        if strange:
            name = strange[0].replace("_", "-")
            raise UsageError(
                f"--{name} does not apply to --objective {objective}", f"it is for {other}"
            )
    values = {**OBJECTIVES[objective].defaults, **known}
    strength = {_STRENGTHS[name]: values.pop(name) for name in [*values] if name in _STRENGTHS}
    asked = tuple(_STRENGTHS[name] for name in given if name in _STRENGTHS)
    return PretrainOptions(**values, strength=Strength(**strength), asked=asked)
