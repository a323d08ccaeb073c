"""Result lines grouped into a comparison: noise against method and role, with spread and differences.

A cell is the mean over heads on each set, then over sets, then over backbones; its spread is the
standard deviation over backbones where there are several, else half the test samples' 95 % interval.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nmlcli.errors import InvalidInput, UsageError, first, meant
from nmlcli.products.results import Line, set_name

Key = tuple[Any, ...]

NOISE = "pretrain_ratio"
ACROSS = "method"
# What tells backbones apart; spectrum lines and training logs have these and no others.
BACKBONE_KEYS = (
    "backbone", "objective", "pretrain_set", "pretrain_noise", NOISE, "pretrain_realised",
    "pretrain_noise_seed", "backbone_seed", "backbone_identity",
)  # fmt: skip
# Keys by which lines are kept apart only where they differ, so that unlike things are never averaged.
_APART = (
    "backbone", "layer", "objective", "pretrain_set", "preset", "loss", "scale", "fraction", "options",
    "train_ratio", "restricted", "class_map",
)  # fmt: skip
_SET_KEYS = ("task", "domain", "split")
_SIDE_MEASURES = ("val_accuracy", "sve", "lsvr")


@dataclass(frozen=True)
class Cell:
    """A mean of the metric with its spread (None: not known) and difference to the clean backbone."""

    value: float
    spread: float | None
    backbones: int
    heads: int
    sets: int
    difference: float | None = None


@dataclass(frozen=True)
class GroupRow:
    """A row of the comparison: its key values, the backbone's own measures, and a cell a method."""

    key: Key
    realised: float | None
    measures: Mapping[str, float] = field(default_factory=dict)
    cells: Mapping[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Rows by keys and columns by method, of one metric, with remarks on how to read it."""

    keys: tuple[str, ...]
    methods: tuple[str, ...]
    measures: tuple[str, ...]
    metric: str
    rows: tuple[GroupRow, ...]
    remarks: tuple[str, ...]


def compare(
    lines: Iterable[Line], by: Sequence[str] = (), metric: str = "accuracy", partial: bool = False
) -> Comparison:
    """Group lines (kinds result, spectrum, epoch) by keys, by default noise, role and method.

    Raises InvalidInput where the groups were scored on different sets and partial is not set, and
    UsageError for a key or metric that no line has.
    """
    every = list(lines)
    results = [line for line in every if line.get("kind") == "result" and not line.get("seen")]
    if not results:
        wrong = "there are no result lines to report" + ", which other lines go along with" * bool(
            every
        )
        raise InvalidInput(wrong, "make them with nml eval --results FILE")
    keys = _checked_keys(by, results) if by else default_keys(results)
    if not any(isinstance(line.get(metric), (int, float)) for line in results):
        raise UsageError(f"no line has a number for {metric!r}", meant(metric, _metrics(results)))
    if not partial:
        refuse_unequal(results, keys)
    down = tuple(key for key in keys if key != ACROSS)
    groups: dict[Key, list[Line]] = {}
    for line in results:
        groups.setdefault(_values(line, down), []).append(line)
    side = _side_measures(_told(every), down)
    rows = []
    for key, group in sorted(groups.items(), key=lambda item: _order(item[0])):
        measured = side.get(_backbone_part(down, key), {})
        rows.append(
            GroupRow(key, _mean_of(group, "pretrain_realised"), measured, _cells(group, metric))
        )
    rows = _with_differences(rows, down)
    methods = tuple(dict.fromkeys(str(line.get(ACROSS)) for line in results))
    measures = tuple(name for name in _SIDE_MEASURES if any(name in row.measures for row in rows))
    left_out = sum(bool(line.get("seen")) for line in every)
    return Comparison(down, methods, measures, metric, tuple(rows), _remarks(rows, results, left_out))


def default_keys(results: Sequence[Line]) -> tuple[str, ...]:
    """Noise, role and method, and whatever else differs among the lines of one method."""
    kinds = {line.get("pretrain_noise") for line in results} - {"none"}
    if not any(line.get("pretrain_noise") and line.get(NOISE) is None for line in results):
        kinds.discard(None)  # else noise without a ratio, such as people make, is no unknown past
    methods = {line.get(ACROSS) for line in results}
    alike = [[line for line in results if line.get(ACROSS) == method] for method in methods]
    apart = [k for k in _APART if any(len({_values(x, (k,)) for x in lines}) > 1 for lines in alike)]
    places: dict[Key, set[Any]] = {}
    for line in results:
        places.setdefault(_values(line, ("task", "domain")), set()).add(line.get("split"))
    split = ["split"] if any(len(splits) > 1 for splits in places.values()) else []
    noise = ["pretrain_noise"] if len(kinds) > 1 else []
    network = ["backbone_identity"] if _alike_but_for_identity(results) else []
    return (*apart, *noise, NOISE, *network, "role", *split, ACROSS)


def _alike_but_for_identity(results: Sequence[Line]) -> bool:
    """Whether two networks differ in nothing that their lines tell: then their seeds are no reason to
    average them, and other training options, or an older run's lines in the file, are likely ones."""
    told = [key for key in BACKBONE_KEYS if key != "backbone_identity"]
    networks = {line.get("backbone_identity"): _values(line, told) for line in results}
    return len(set(networks.values())) < len(networks)


def refuse_unequal(results: Sequence[Line], keys: Sequence[str]) -> None:
    """Raise InvalidInput where a mean of one group and backbone is over other sets than another's."""
    described = [key for key in keys if key in (*_SET_KEYS, "role")]
    scored: dict[Key, dict[Key, set[str]]] = {}
    for line in results:
        group = (*_values(line, keys), line.get("backbone_identity"), line.get("seed"))
        scored.setdefault(_values(line, described), {}).setdefault(group, set()).add(set_name(line))
    for groups in scored.values():
        union = set().union(*groups.values())
        for group, sets in groups.items():
            if missing := sorted(union - sets):
                told = [(k, v) for k, v in zip(keys, group, strict=False) if v is not None]
                where = ", ".join(f"{key} {value}" for key, value in told)
                raise InvalidInput(
                    f"{where} has no result on {first(missing)}, which others have",
                    "score it, or give --partial to average over what there is",
                )


def _checked_keys(by: Sequence[str], results: Sequence[Line]) -> tuple[str, ...]:
    known = dict.fromkeys(key for line in results for key in line)
    for key in by:
        if key not in known:
            raise UsageError(f"no line has the key {key!r}", meant(key, known))
    return tuple(by)


def _metrics(results: Sequence[Line]) -> list[str]:
    return sorted({key for line in results for key, value in line.items() if isinstance(value, float)})


def _values(line: Line, keys: Iterable[str]) -> Key:
    return tuple(_hashable(line.get(key)) for key in keys)


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value


def _order(key: Key) -> list[tuple[int, Any]]:
    """Numbers by size, then texts, then what is not known."""
    return [
        (0, value) if isinstance(value, (int, float)) else (2, "") if value is None else (1, str(value))
        for value in key
    ]


def _backbone_part(keys: Sequence[str], key: Key) -> Key:
    return tuple(value for name, value in zip(keys, key, strict=True) if name in BACKBONE_KEYS)


def _cells(group: Sequence[Line], metric: str) -> dict[str, Cell]:
    methods: dict[str, list[Line]] = {}
    for line in group:
        if isinstance(line.get(metric), (int, float)):
            methods.setdefault(str(line.get(ACROSS)), []).append(line)
    return {method: _cell(lines, metric) for method, lines in methods.items()}


def _cell(lines: Sequence[Line], metric: str) -> Cell:
    backbones: dict[Any, dict[str, list[Line]]] = {}
    for line in lines:
        sets = backbones.setdefault(line.get("backbone_identity"), {})
        sets.setdefault(set_name(line), []).append(line)
    means = [
        statistics.fmean(statistics.fmean(line[metric] for line in heads) for heads in sets.values())
        for sets in backbones.values()
    ]
    one = next(iter(backbones.values()))
    spread = statistics.stdev(means) if len(means) > 1 else _interval(one, metric)
    num_heads = len({line.get("head") for line in lines})
    num_sets = len({set_name(line) for line in lines})
    return Cell(statistics.fmean(means), spread, len(means), num_heads, num_sets)


def _interval(sets: Mapping[str, Sequence[Line]], metric: str) -> float | None:
    """Half the 95 % interval of a mean over test sets whose samples are independent."""
    halves = []
    for lines in sets.values():
        low, high = _mean_of(lines, f"{metric}_low"), _mean_of(lines, f"{metric}_high")
        if low is None or high is None:
            return None
        halves.append((high - low) / 2)
    return math.sqrt(sum(half**2 for half in halves)) / len(halves)


def _mean_of(lines: Iterable[Line], key: str) -> float | None:
    numbers = [line[key] for line in lines if isinstance(line.get(key), (int, float))]
    return statistics.fmean(numbers) if numbers else None


def _told(lines: Sequence[Line]) -> list[Line]:
    """The lines that are no results; of a training log, what others tell of its network is added."""
    known = {
        line["backbone_identity"]: {key: line.get(key) for key in BACKBONE_KEYS}
        for line in lines
        if line.get("kind") != "epoch" and line.get("backbone_identity")
    }
    others = [line for line in lines if line.get("kind") != "result"]
    return [{**known.get(line.get("backbone_identity"), {}), **line} for line in others]


def _side_measures(lines: Sequence[Line], down: Sequence[str]) -> dict[Key, dict[str, float]]:
    """SVE and LSVR of the features and the last validation accuracy, by what tells backbones apart."""
    keys = [key for key in down if key in BACKBONE_KEYS]
    last: dict[Key, Line] = {}
    for line in lines:  # of a training log the last epoch, of a spectrum every source
        run = line.get("backbone_identity") if line.get("kind") == "epoch" else line.get("features")
        last[(*_values(line, keys), line.get("kind"), run, set_name(line))] = line
    groups: dict[Key, list[Line]] = {}
    for key, line in last.items():
        groups.setdefault(key[: len(keys)], []).append(line)
    return {
        key: {n: mean for n in _SIDE_MEASURES if (mean := _mean_of(group, n)) is not None}
        for key, group in groups.items()
    }


def _with_differences(rows: Sequence[GroupRow], keys: Sequence[str]) -> list[GroupRow]:
    """Fill in each cell's difference to the clean row that is alike in everything but the noise."""
    if NOISE not in keys:
        return list(rows)

    def alike(key: Key) -> Key:
        own = (NOISE, "pretrain_noise", "pretrain_noise_seed", "pretrain_realised", "backbone_identity")
        return tuple(value for name, value in zip(keys, key, strict=True) if name not in own)

    clean: dict[Key, GroupRow | None] = {}
    for row in rows:
        if row.key[keys.index(NOISE)] == 0:  # two clean rows leave open which one is meant
            clean[alike(row.key)] = None if alike(row.key) in clean else row
    filled = []
    for row in rows:
        base = clean.get(alike(row.key)) if row.key[keys.index(NOISE)] != 0 else None
        cells = dict(row.cells)
        for method, clean_cell in base.cells.items() if base is not None else ():
            if method in cells:
                cell = cells[method]
                cells[method] = replace(cell, difference=cell.value - clean_cell.value)
        filled.append(replace(row, cells=cells))
    return filled


def _remarks(rows: Sequence[GroupRow], results: Sequence[Line], left_out: int) -> tuple[str, ...]:
    cells = [cell for row in rows for cell in row.cells.values()]
    remarks = []
    kinds = sorted({str(line.get("pretrain_noise")) for line in results} - {"None", "none"})
    if kinds:
        remarks.append(f"noise: realised share of changed pre-training labels ({', '.join(kinds)}).")
    if left_out:
        remarks.append(f"{left_out} lines score a set that the head was made on: left out.")
    if any(cell.difference is not None for cell in cells):
        remarks.append("last number: difference to the row without noise.")
    if any(cell.backbones > 1 for cell in cells):
        counts = sorted({cell.backbones for cell in cells})
        several = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        remarks.append(f"±: standard deviation over {several} pre-training runs.")
    spreads = [cell.spread for cell in cells if cell.spread is not None and cell.backbones == 1]
    if spreads:
        # The half-width of a difference of two independent means with the widest interval.
        bound = 100 * math.sqrt(2) * max(spreads)
        remarks.append(
            "±: 95 % interval for the test samples alone, where there is one pre-training run: "
            f"differences below {bound:.1f} points may be chance, and whether a larger one comes from "
            "the noise or from the seed takes more seeds to decide."
        )
    return tuple(remarks)
