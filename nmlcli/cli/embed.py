"""`nml embed`: the features of a set."""

from typing import Annotated, Literal

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.data.sources import SourceOptions
from nmlcli.models.precision import PRECISIONS
from nmlcli.models.schemes import SCHEMES

_MODEL = "The network: " + "; ".join(scheme.help for scheme in SCHEMES.values()) + "."


@options.with_source
def embed(
    data: Annotated[list[str] | None, options.argument("[[NAME=]DATA|-]...", options.DATA_HELP)] = None,
    *,
    model: Annotated[str, option("-m --model MODEL", _MODEL)],
    out: options.Out = None,
    random_init: Annotated[
        bool, option("--random-init", "Build it without weights, from the seed.")
    ] = False,
    seed: options.Seed = 0,
    size: Annotated[
        int | None, option("--size PIXELS", "Size of the images, else its own.", min=8, max=4096)
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16"], option("--dtype float32|float16", "Of the features.")
    ] = "float32",
    shard: Annotated[
        str | None, option("--shard I/N", "Only the I-th (from 0) of N runs of rows.")
    ] = None,
    compress: Annotated[bool, option("--compress", "Compress the file, which must be HDF5.")] = False,
    precision: Annotated[str, choice(PRECISIONS, "--precision PRECISION", "Compute in")] = "fp32",
    batch_size: Annotated[int, option("--batch-size N", "Images at once.", min=1)] = 256,
    workers: Annotated[int, option("--workers N", "Threads that read images ahead.", min=0)] = 2,
    reuse: options.Reuse = False,
    source: SourceOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Make features: one row a sample, what the network has before its classifier.

    Several sets share one start of the network: with -o DIR/ each becomes DIR/NAME.h5.
    """
    from nmlcli.stages.embed import EmbedOptions
    from nmlcli.stages.embed import embed as run

    sources = options.inputs(data, "DATA")
    render.refuse_terminal(out)
    asked = EmbedOptions(
        source=source, random_init=random_init, seed=seed, size=size, precision=precision, dtype=dtype,
        shard=shard, compress=compress, batch_size=batch_size, workers=workers, reuse=reuse,
    )  # fmt: skip
    with render.progress("embed", quiet) as advance:
        run(sources, model, out, asked, advance)
