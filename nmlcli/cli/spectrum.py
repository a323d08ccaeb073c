"""`nml spectrum`: the singular values of features."""

from typing import Annotated

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.numerics.measures import MEASURES, PREPARATIONS

_WHOLE = [
    "source", "rows", "columns", *MEASURES, "alpha_req_from", "alpha_req_to", "undefined",
    "spectrum_preset", "center",
]  # fmt: skip
_SHORT = [
    "source", "rows", "columns", "sve", "lsvr", "effective_rank", "rankme", "alpha_req", "stable_rank",
]  # fmt: skip
_STATE = "Also write the state: singular values, Gram matrix, column sums."


def spectrum(
    features: options.Features = None,
    out: Annotated[str | None, option("-o --out FILE", _STATE)] = None,
    preset: Annotated[
        str, choice(PREPARATIONS, "--preset PRESET", "What is done to each row first")
    ] = "raw",
    center: Annotated[bool, option("--center", "Take the column means off for every measure.")] = False,
    results: options.Results = None,
    reuse: options.Reuse = False,
    as_json: options.AsJson = False,
    as_table: options.AsTable = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure the singular values of features: SVE, LSVR and their kin, one row a source.

    Logarithms are natural. alpha_req and participation_ratio are always of the centred features.
    """
    from nmlcli.stages.spectrum import SpectrumOptions, measure

    sources = options.inputs(features, "FEATURES")
    asked = SpectrumOptions(preset=preset, center=center, results=results, reuse=reuse)
    with render.progress("spectrum", quiet, draining="-" in sources) as advance:
        rows = list(measure(sources, out, asked, advance))
    if len(rows) == 1:
        render.cards(rows, as_json, as_table, lambda row: {key: row[key] for key in _WHOLE})
    else:
        render.table(*render.columns(rows, _SHORT), rows, as_json, as_table)
