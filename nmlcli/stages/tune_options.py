"""What `nml tune` is asked for, and what of it does not go together."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nmlcli.errors import UsageError, first
from nmlcli.tuning.criteria import LOSSES
from nmlcli.tuning.grids import Grid, points
from nmlcli.tuning.methods import SOLVERS, TRAINED, check_knobs, option_name
from nmlcli.tuning.presets import PRESETS

_SEEDS = 2**63  # how many there are, from 0 on


@dataclass(frozen=True)
class TuneOptions:
    """What `nml tune` is asked for. knobs: settings given beside the preset's, by field name.

    grid: values of settings to choose from. l2: of lbfgs, a number or `auto`. fraction, val_fraction:
    shares of the training set to use, and to validate on. views: None where the set has some.
    """

    methods: tuple[str, ...] = ("nmtune",)
    preset: str = "paper"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    grid: Grid = field(default_factory=dict)
    solver: str = "adamw"
    l2: str | None = None
    seed: int = 0
    seeds: int = 1
    labels: str | None = None
    scale: str = "none"
    fraction: float = 1.0
    validation: str | None = None
    val_fraction: float | None = None
    refit: bool = False
    views: bool | None = None
    log: str | None = None
    reuse: bool = False

    @property
    def inputs(self) -> list[str]:
        """The files that are read beside the features."""
        return [file for file in (self.labels, self.validation) if file]

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that each head is tuned with."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def validates(self) -> bool:
        """Whether there are rows to validate on."""
        return self.validation is not None or self.val_fraction is not None

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses that are asked for."""
        return tuple(self.grid.get("loss", (self.knobs.get("loss", "ce"),)))


def checked(options: TuneOptions) -> TuneOptions:
    """Options with the methods once each and the number of --l2 among the knobs.

    Raises UsageError for what does not go together or has no effect.
    """
    if not options.methods:
        raise UsageError("--method names no method", f"give some of {', '.join(TRAINED)}")
    if options.seed + options.seeds > _SEEDS:
        raise UsageError(f"--seeds {options.seeds} goes beyond the last seed, 2^63 - 1", "give fewer")
    _check_files(options)
    options = _with_l2(replace(options, methods=tuple(dict.fromkeys(options.methods))))
    if twice := [knob for knob in options.grid if knob in options.knobs]:
        raise UsageError(f"{option_name(twice[0])} is in --grid too", "give it once")
    for point in points(options.grid):
        given = {**options.knobs, **point}
        check_knobs(options.methods, given, options.losses, options.solver)
    counted = [loss for loss in options.losses if LOSSES[loss].transition]
    if counted and options.labels is not None and _is_pipe(options.labels):
        wrong = f"--labels {options.labels} is read twice, which a pipe cannot be"
        raise UsageError(wrong, f"give a file: --loss {counted[0]} counts its noise")
    if counted and options.refit and options.validation is not None:
        wrong = f"--loss {counted[0]} knows nothing of the noise of --val, which --refit trains on"
        raise UsageError(wrong, "give --val-fraction, or leave --refit out")
    if options.validation is not None and options.val_fraction is not None:
        raise UsageError("--val and --val-fraction exclude each other", "give one of them")
    chosen = {
        "--grid": len(points(options.grid)) > 1,
        "--l2 auto": options.l2 == "auto",
        "--refit": options.refit,
    }
    needing = [option for option, given in chosen.items() if given]
    if needing and not options.validates:
        wrong = f"{needing[0]} needs rows to validate on"
        raise UsageError(wrong, "give --val FEATURES or --val-fraction F")
    if options.seeds > 1 and not SOLVERS[options.solver].draws:
        raise UsageError(f"--seeds has no effect with --solver {options.solver}", "it draws nothing")
    if options.views and PRESETS[options.preset].views < 2:
        rows = [name for name, preset in PRESETS.items() if preset.views > 1]
        wrong = f"--views does not apply to --preset {options.preset}"
        raise UsageError(wrong, f"it is for {first(rows)}")
    return options


def _check_files(options: TuneOptions) -> None:
    """Raise UsageError for names that are no files."""
    named = {"--labels": options.labels, "--val": options.validation, "--log": options.log}
    for option, file in named.items():
        if file == "":
            raise UsageError(f"{option} names no file", "give a name, or leave it out")
    if options.log == "-":
        raise UsageError("--log - is no file", "give the name of a file: stdout is for heads")


def _is_pipe(source: str) -> bool:
    path = Path(source)
    return source == "-" or (path.exists() and not path.is_file())


def _with_l2(options: TuneOptions) -> TuneOptions:
    takes = "l2" not in SOLVERS[options.solver].without
    if options.l2 is None:
        if takes and "l2" not in options.grid:
            wrong = f"--solver {options.solver} needs --l2"
            raise UsageError(wrong, "give a number, or auto with --val-fraction F")
        return options
    if options.l2 == "auto":
        if not takes:
            check_knobs(options.methods, {"l2": 0.0}, solver=options.solver)  # says what it is for
        if "l2" in options.grid:
            raise UsageError("--l2 is in --grid too", "give it once")
        return options
    try:
        return replace(options, knobs={**options.knobs, "l2": float(options.l2)})
    except ValueError:
        raise UsageError(f"--l2 is {options.l2}", "give a number or auto") from None
