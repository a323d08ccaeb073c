"""The only place that knows Rich: progress on stderr, answers as tables or JSON Lines on stdout.

Rich is imported when something is drawn, since help, completion and pipes do without.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nmlcli.atomic import replacing
from nmlcli.errors import UsageError, visible
from nmlcli.products.results import FRACTIONS, to_json
from nmlcli.progress import Advance, silent

if TYPE_CHECKING:
    from rich.console import RenderableType

log = logging.getLogger(__name__)

Row = Mapping[str, Any]

_LEAST = 18  # columns for a short bar, the time left and the spaces between
_SVG_COLUMNS = 88
_BLOCKS = "▁▂▃▄▅▆▇█"
_LINES_EVERY = 10.0  # seconds between plain progress lines


def refuse_terminal(out: str | None) -> None:
    """Stop before any work where a binary product would be written to a terminal."""
    if out in (None, "-") and sys.stdout.isatty():
        raise UsageError("the product is binary", "give -o FILE or pipe it")


@contextmanager
def progress(title: str, quiet: bool = False, draining: bool = False) -> Iterator[Advance]:
    """Give a callback that shows how far the work is: a bar where stderr is a terminal.

    Nothing is drawn before the first call, so that what is up to date stays silent. Without a terminal,
    `-v` gives a line now and then. draining: the command only reads what another one shows.
    """
    if quiet or draining:
        yield silent
    elif sys.stderr is not None and sys.stderr.isatty():
        bar = _Bar(title)
        try:
            yield bar
        finally:
            bar.close()
    elif log.isEnabledFor(logging.DEBUG):
        yield _Lines(title)
    else:
        yield silent


class _Bar:
    """A Rich progress bar that starts with the first call."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = 0.0
        self.drawn = 0.0
        self.bar: Any = None
        self.task: Any = None

    def __call__(self, done: int, total: int | None, **values: float | str) -> None:
        now = time.monotonic()
        if self.bar is None:
            self._start(total, now)
        elif now - self.drawn < 0.05 and done != total:
            return
        self.drawn = now
        task = self.bar.tasks[0]
        if done < task.completed:  # another round of work
            self.bar.reset(self.task, total=total)
        speed, count = task.finished_speed or task.speed, _counts(done, total)
        rate = f"{speed:,.{0 if speed >= 10 else 1}f}/s" if speed else ""
        room = self.bar.console.width - len(self.title) - len(count) - len(rate) - _LEAST
        shown = _shown(values, room) or task.fields["values"]
        self.bar.update(self.task, completed=done, total=total, count=count, rate=rate, values=shown)

    def _start(self, total: int | None, now: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.started = now
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[count]}"), TextColumn("{task.fields[rate]}", style="dim"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[values]}", markup=False),
            console=Console(stderr=True), redirect_stdout=False, expand=True,
        )  # fmt: skip
        self.task = self.bar.add_task(self.title, total=total, count="", rate="", values="")
        self.bar.start()

    def close(self) -> None:
        """Leave the bar as it stands; one of less than a second vanishes."""
        if self.bar is not None:
            self.bar.live.transient = time.monotonic() - self.started < 1
            self.bar.stop()


def _counts(done: float, total: float | None) -> str:
    """`512/2,000`, as wide at the start as at the end, so that the bar stands still."""
    return f"{done:,.0f}" if total is None else f"{done:>{len(f'{total:,.0f}')},.0f}/{total:,.0f}"


def _shown(values: Mapping[str, float | str], room: int = 1000) -> str:
    """Values with their names; where room is short, the last but one goes, and so on."""
    parts = [
        f"{name.removesuffix('_accuracy').replace('_', ' ')} {visible(_steady(name, value))}"
        for name, value in values.items()
    ]
    while len(parts) > 1 and len("  ".join(parts)) > room:
        del parts[-2]
    return "  ".join(parts)


def _steady(name: str, value: float | str) -> str:
    """A value of a width that changes little from call to call."""
    if isinstance(value, float) and name not in FRACTIONS:
        return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.1e}"
    return _value(name, value)


class _Lines:
    """Plain progress lines on stderr, one every few seconds."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.last = time.monotonic()

    def __call__(self, done: int, total: int | None, **values: float | str) -> None:
        now = time.monotonic()
        if done != total and now - self.last < _LINES_EVERY:
            return
        self.last = now
        log.debug("%s %s  %s", self.title, _counts(done, total), _shown(values))


def summary(facts: Row, quiet: bool = False) -> None:
    """Show what was done as a card on stderr, if that is a terminal."""
    if facts and not quiet and sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True, highlight=False).print(_card(facts))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], flat: Iterable[Row],
    as_json: bool, as_table: bool, remarks: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write to stdout a table with remarks below it on a terminal, else the flat rows as JSON Lines."""
    if _for_people(as_json, as_table):
        _draw([_grid(header, rows, _columns()), *_remarks(remarks)])
    else:
        lines(flat)


def kept(rows: Iterable[Row], as_json: bool, as_table: bool) -> list[Row]:
    """The rows of a table; into a pipe or a file they go as JSON Lines, as they come: none is left."""
    if _for_people(as_json, as_table) or sys.stdout.isatty():
        return list(rows)
    lines(rows)
    return []


def cards(
    rows: Iterable[Row], as_json: bool, as_table: bool, shown: Callable[[Row], Row] = dict
) -> None:
    """Write rows to stdout as they come: on a terminal as cards, key by key, else as JSON Lines.

    shown: what a card shows of a row, in order; a key without a value is left out.
    """
    if not _for_people(as_json, as_table):
        lines(rows)
        return
    for number, row in enumerate(rows):
        _draw(["", _card(shown(row))] if number else [_card(shown(row))])


def lines(rows: Iterable[Row]) -> None:
    """Write rows to stdout as JSON Lines, each as it comes."""
    for row in rows:
        sys.stdout.write(f"{to_json(row)}\n")
        sys.stdout.flush()


def columns(rows: Iterable[Row], keys: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The header and rows of a table of these keys; the words of a key stand below each other."""
    body = [[_value(key, row.get(key)) for key in keys] for row in rows]
    return [key.replace("_", "\n") for key in keys], body


def sparkline(values: Sequence[float], width: int = 10) -> str:
    """Positive values, descending, as a line of blocks: both axes are logarithmic, 0 is a blank."""
    places = [round(len(values) ** (k / (width - 1))) - 1 for k in range(width)] if len(values) else []
    logs = [math.log(values[place]) if values[place] > 0 else None for place in sorted(set(places))]
    known = [log for log in logs if log is not None]
    if not known:
        return ""
    span = (known[0] - known[-1]) or 1.0
    return "".join(
        " " if log is None else _BLOCKS[round((len(_BLOCKS) - 1) * (1 - (known[0] - log) / span))]
        for log in logs
    )


def _for_people(as_json: bool, as_table: bool) -> bool:
    if as_json and as_table:
        raise UsageError("--json and --table exclude each other", "give one of them")
    return as_table or (sys.stdout.isatty() and not as_json)


def write_svg(
    out: str, header: Sequence[str], rows: Sequence[Sequence[str]], remarks: Sequence[str], title: str
) -> None:
    """Write a table as the SVG picture of a terminal, the same bytes for the same table."""
    import io

    from rich.console import Console

    console = Console(record=True, width=_SVG_COLUMNS, file=io.StringIO(), force_terminal=True)
    for part in (_grid(header, rows, _SVG_COLUMNS), *_remarks(remarks)):
        console.print(part)
    with replacing(out) as temporary:
        temporary.write_text(console.export_svg(title=title, unique_id="nml"), encoding="utf-8")


def _remarks(remarks: Sequence[str]) -> list["RenderableType"]:
    from rich.text import Text

    return [Text(visible(line), style="dim") for line in remarks]


def _columns() -> int:
    from rich.console import Console

    return Console(file=sys.stdout).width


def _draw(parts: Iterable["RenderableType"]) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    for part in parts:
        console.print(part)


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Any:
    """A table of texts; where the width is short, its columns stand closer."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    header = [visible(name, "\n") for name in header]  # whose words may stand below each other
    body = [[visible(cell) for cell in row] for row in rows]
    cells = zip(header, *body, strict=True)
    closest = sum(
        max(len(part) for cell in column for part in cell.split("\n")) + 1 for column in cells
    )
    gap = 1 if closest + len(header) - 2 <= width else 0  # beside the box's own
    grid = Table(
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), show_edge=False, header_style="bold"
    )
    for number, name in enumerate(header):
        numeric = number > 0 and all(_looks_numeric(row[number]) for row in body)
        grid.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in body:
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def _looks_numeric(cell: str) -> bool:
    return cell.strip()[:1] in ("", *"0123456789-−–+")


def _card(row: Row) -> Any:
    from rich.table import Table
    from rich.text import Text

    card = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    card.add_column(style="bold", no_wrap=True)
    card.add_column(overflow="fold")
    for key, value in row.items():
        if value is not None:
            card.add_row(key.replace("_", " "), Text(visible(_value(key, value))))
    return card


def _value(key: str, value: Any) -> str:
    """A value as people read it: shares in per cent, thousands set apart, four digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if key in FRACTIONS else _rounded(value)
    if isinstance(value, int):
        return f"{value:,}" if key != "seed" else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(key, item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(k, item)}" for k, item in value.items() if item is not None)
    return str(value)


def _rounded(value: float) -> str:
    if abs(value) < 1000 and value.is_integer():
        return f"{value:.1f}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
