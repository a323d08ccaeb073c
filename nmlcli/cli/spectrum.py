"""`nml spectrum`: the singular values of features."""

from typing import Annotated, Any

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.numerics.measures import MEASURES, PREPARATIONS

_WHOLE = [
    "source", "class", "parts", "rows", "columns", "sample", "seed", *MEASURES, "skewness", "kurtosis",
    "constant_columns", "cka", "principal_angle", "principal_angle_k", "alpha_req_from",
    "alpha_req_to", "undefined", "spectrum_preset", "center", "tolerance", "rankme_eps", "zero_rows",
]  # fmt: skip
_SHORT = [
    "source", "class", "rows", "columns", "sve", "lsvr", "effective_rank", "alpha_req", "stable_rank",
    "skewness", "kurtosis", "cka", "principal_angle",
]  # fmt: skip
_SOMETIMES = ("skewness", "kurtosis", "cka", "principal_angle")
_LESS = ("stable_rank", "effective_rank", "columns", "alpha_req")  # what goes to make room for those

_FEATURES = "Files of features or of saved states, or a stream of features on stdin."
_STATE = "Also write the state: singular values, Gram matrix, column sums. Several inputs become one."
_PLOT = "Draw the singular values into FILE (.png, .svg, .pdf; extra plot), all inputs in one picture."
_ROWS, _MORE = "Which rows", "Further measures"


def spectrum(
    features: Annotated[
        list[str] | None, options.argument("[FEATURES|STATE|-]...", _FEATURES)
    ] = None,
    out: Annotated[str | None, option("-o --out FILE", _STATE)] = None,
    preset: Annotated[
        str | None,
        choice(PREPARATIONS, "--preset PRESET", "What is done to each row first, raw unless given"),
    ] = None,
    center: Annotated[bool, option("--center", "Take the column means off for every measure.")] = False,
    head: Annotated[
        str | None, option("--head HEAD", "Measure Z, what this head makes of the features.")
    ] = None,
    by_class: Annotated[
        bool, option("--by-class", "A line for each class, in several passes if need be.", _ROWS)
    ] = False,
    sample: Annotated[
        int | None,
        option("--sample N", "Only N rows (of each class), the same ids for every network.", _ROWS,
               min=1),
    ] = None,
    seed: options.Seed = 0,
    concat: Annotated[
        bool, option("--concat", "The inputs are parts of one set: one line for all.", _ROWS)
    ] = False,
    against: Annotated[
        str | None,
        option("--against FEATURES", "Compare with features of the same rows: linear CKA and the mean"
               " principal angle.", _MORE),
    ] = None,
    top: Annotated[
        int | None,
        option("--top K", "The angle is between the first K left singular vectors, 10 unless given.",
               _MORE, min=1),
    ] = None,
    moments: Annotated[
        bool, option("--moments", "Skewness and excess kurtosis, means over the columns.", _MORE)
    ] = False,
    plot: Annotated[str | None, option("--plot FILE", _PLOT)] = None,
    results: options.Results = None,
    reuse: options.Reuse = False,
    as_json: options.AsJson = False,
    as_table: options.AsTable = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:  # fmt: skip
    """Measure the singular values of features: SVE, LSVR and their kin, one row a source.

    Logarithms are natural, angles in radians. alpha_req and participation_ratio are always of the
    centred features. Saved states add up: those of the parts of a set, with --concat, are measured
    as the whole.
    """
    from nmlcli.stages.spectrum import SpectrumOptions, measure

    sources = options.inputs(features, "FEATURES")
    asked = SpectrumOptions(
        preset=preset, center=center, results=results, reuse=reuse, by_class=by_class, sample=sample,
        seed=seed, concat=concat, against=against, top=top, moments=moments, head=head, plot=plot,
    )  # fmt: skip
    lines: dict[str, str] = {}

    def keep(row: render.Row, values: Any) -> None:
        lines[row["identity"]] = render.sparkline(values)

    with render.progress("spectrum", quiet, draining="-" in sources) as advance:
        rows = render.kept(measure(sources, out, asked, advance, keep), as_json, as_table)
    if not rows:
        return
    if len(rows) == 1:
        render.cards(rows, as_json, as_table, lambda row: _card(row, lines))
        return
    told = [key for key in ("class", *_SOMETIMES) if any(key in row for row in rows)]
    absent = {"class", *_SOMETIMES} - {*told} | {*_LESS[: len(told)]}
    keys = [key for key in _SHORT if key not in absent]
    header, body = render.columns(rows, keys)
    if lines:
        header.append("spectrum")
        body = [[*cells, lines.get(r["identity"], "")] for cells, r in zip(body, rows, strict=True)]
    render.table(header, body, rows, as_json, as_table, list(dict.fromkeys(map(_how, rows))))


def _how(row: render.Row) -> str:
    """How a row was measured, as a remark below the table."""
    fit = f"; alpha_req over ranks {row['alpha_req_from']}–{row['alpha_req_to']}"
    return (
        f"rows {row['spectrum_preset']}, {'' if row['center'] else 'not '}centred; 0 is below"
        f" {row['tolerance']:.2g} σ₁{fit if row['alpha_req_from'] else ''}"
    )


def _card(row: render.Row, lines: dict[str, str]) -> render.Row:
    shown = {key: row[key] for key in _WHOLE if key in row}
    return {**shown, "spectrum": lines.get(row["identity"])}
