"""`nml embed`: the features of a set."""

from typing import Annotated, Literal

from nmlcli.cli import options, render
from nmlcli.cli.options import choice, option
from nmlcli.data.sources import SourceOptions
from nmlcli.errors import UsageError
from nmlcli.models.pooling import POOLINGS
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
    layer: Annotated[
        str | None,
        option("--layer NAME", "Take what this layer says, else what comes before the logits."),
    ] = None,
    pool: Annotated[
        str | None, choice(POOLINGS, "--pool POOL", "Of many positions make one row by")
    ] = None,
    texts: Annotated[
        bool, option("--texts", "Of a set of images with texts take these, by a network for both.")
    ] = False,
    views: Annotated[
        int | None,
        option("--views K", "Besides, features of K augmented views of each image.", min=1, max=1000),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16"], option("--dtype float32|float16", "Of the features.")
    ] = "float32",
    shard: Annotated[
        str | None, option("--shard I/N", "Only the I-th (from 0) of N runs of rows.")
    ] = None,
    compress: Annotated[bool, option("--compress", "Compress the file, which must be HDF5.")] = False,
    precision: Annotated[str, choice(PRECISIONS, "--precision PRECISION", "Compute in")] = "fp32",
    batch_size: Annotated[
        str | None,
        option(
            "--batch-size N|auto",
            "Samples at once, else 256 images or 32 texts; auto takes fewer where memory runs out.",
        ),
    ] = None,
    workers: Annotated[int, option("--workers N", "Threads that read images ahead.", min=0)] = 2,
    skip_bad: Annotated[
        bool, option("--skip-bad", "Leave out images that cannot be read, and say which.")
    ] = False,
    resume: Annotated[
        bool, option("--resume", "Keep rows in OUT.partial, and go on from those of a killed run.")
    ] = False,
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
        layer=layer, pool=pool, texts=texts, views=views or 0, shard=shard, skip_bad=skip_bad,
        compress=compress, batch_size=_batch_size(batch_size), auto=batch_size == "auto",
        workers=workers, resume=resume, reuse=reuse,
    )  # fmt: skip
    with render.progress("embed", quiet) as advance:
        run(sources, model, out, asked, advance)


def _batch_size(text: str | None) -> int | None:
    if text in (None, "auto"):
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise UsageError(f"--batch-size is {text!r}", "give a whole number of 1 or more, or auto")
    return int(text)
