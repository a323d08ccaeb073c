"""`nml convert`: features from one form of file to another."""

from typing import Annotated, Literal

from nmlcli.cli import options, render
from nmlcli.cli.options import argument, option
from nmlcli.products.formats import FORMATS
from nmlcli.products.vectors import VECTORS

_FORMS = "; ".join(f"{suffix} ({row.help})" for suffix, row in VECTORS.items())
_IN = f"Features ({', '.join(FORMATS)}, or a stream on stdin), or vectors of others: {_FORMS}."
_OUT = "Where to, whole or not at all; its suffix picks the form. Else a stream on stdout."
_KEY = (
    "The array, column or dotted path of the vectors (of arrays features; .parquet, .jsonl: embedding, "
    "of an API's answers response.body.data.0.embedding; .csv: what the columns' names start with, f)."
)


def convert(
    source: Annotated[str | None, argument("[IN|-]", _IN)] = None,
    out: Annotated[str | None, argument("[OUT|-]", _OUT)] = None,
    labels: Annotated[
        str | None, option("--labels TABLE", "Lay these labels over the rows, by id.")
    ] = None,
    id_column: Annotated[
        str | None,
        option(
            "--id-column NAME",
            "The ids in IN and TABLE (IN may lack them then); else id, of an API's answers custom_id.",
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        option("--label-column NAME", "The labels in IN and in TABLE, else label (of arrays labels)."),
    ] = None,
    classes: Annotated[
        str | None, option("--classes FILE", "The class names in their order, a name a line.")
    ] = None,
    key: Annotated[str | None, option("--key KEY", _KEY)] = None,
    model: Annotated[
        str | None,
        option("--model NAME", "The network of vectors from elsewhere: one name is one network."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16"] | None,
        option("--dtype float32|float16", "Of the features, else as it is; float64 becomes float32."),
    ] = None,
    form: Annotated[
        Literal["jsonl", "csv"] | None,
        option("--from jsonl|csv", "What IN is, where its name does not say it, as on stdin."),
    ] = None,
    reuse: options.Reuse = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Convert features between forms of files; vectors from an API or another program become features.

    What nml wrote keeps its identity, ids and labels in any form but .npy, and gets them back.
    """
    from nmlcli.stages.convert import ConvertOptions
    from nmlcli.stages.convert import convert as run

    given = options.one_input(source, "IN")
    render.refuse_terminal(out)
    asked = ConvertOptions(
        labels=labels, id_column=id_column, label_column=label_column, classes=classes, key=key,
        model=model, dtype=dtype, form=form, reuse=reuse,
    )  # fmt: skip
    with render.progress("convert", quiet, draining=given == "-") as advance:
        run(given, out, asked, advance)
