"""`nml spectrum`: the singular values of features."""

from typing import Annotated

import typer

from nmlcli.cli import render
from nmlcli.cli.options import (
    AsJson,
    AsTable,
    Features,
    Quiet,
    Results,
    Reuse,
    Verbose,
    choice,
    inputs,
)
from nmlcli.numerics.measures import MEASURES, PREPARATIONS

_WHOLE = [
    "source", "rows", "columns", *MEASURES, "alpha_req_from", "alpha_req_to", "undefined",
    "spectrum_preset", "center",
]  # fmt: skip
_SHORT = ["source", "rows", "sve", "lsvr", "effective_rank", "rankme", "alpha_req", "stable_rank"]


def spectrum(
    features: Features = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Also write the state: singular values, Gram matrix, column sums.",
        ),
    ] = None,
    preset: Annotated[
        str, choice(PREPARATIONS, "--preset", help="What is done to each row first")
    ] = "raw",
    center: Annotated[
        bool, typer.Option("--center", help="Take the column means off for every measure.")
    ] = False,
    results: Results = None,
    reuse: Reuse = False,
    as_json: AsJson = False,
    as_table: AsTable = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure the singular values of features: SVE, LSVR and their kin, one row a source.

    Logarithms are natural. alpha_req and participation_ratio are always of the centred features.
    """  # fmt: skip
    from nmlcli.stages.spectrum import SpectrumOptions, measure

    sources = inputs(features, "FEATURES")
    options = SpectrumOptions(preset=preset, center=center, results=results, reuse=reuse)
    with render.progress("spectrum", quiet, draining="-" in sources) as advance:
        rows = list(measure(sources, out, options, advance))
    render.answer(rows, as_json, as_table, _WHOLE if len(sources) <= 3 else _SHORT)
