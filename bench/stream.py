"""How fast features flow: through pipes, and to and from files; and how much memory that takes.

    python bench/stream.py [RUNS]

One JSON line each, medians over the runs, alternatives in turns with ours in the same run. The
features are 100,000 × 1,024 float32 values (410 MB), with ids and labels. Every measured work is a
process of its own, so that its peak of memory is its own; its start is left out of its time.

- write: our writer | cat, beside cat FILE | cat, all into /dev/null.
- read: cat FILE | our reader, beside cat FILE | cat.
- write .h5, write .safetensors: whole files, flushed to the disk as ours always are, beside a bare h5py
  loop (chunks of 1 MiB, no checksums) and numpy's tofile.
- read .h5, read .safetensors: in blocks of 4,096 rows from a warm cache, beside a bare h5py loop over
  the file without checksums and over ours, and plain reads into one buffer.
- read .h5 and sum: with the least that a spectrum does, from files with and without checksums.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, COLUMNS, BLOCK = 100_000, 1024, 4096
Work = Callable[[], Any]
Run = Callable[[], tuple[float, int]]


def say(case: str, **values: Any) -> None:
    """Write a line."""
    print(json.dumps({"case": case, **{k: round(v, 4) if isinstance(v, float) else v
                                       for k, v in values.items()}}), flush=True)  # fmt: skip


def made() -> Any:
    """Features whose blocks (of a divisor of BLOCK rows) are slices of one array, made for nothing."""
    import numpy as np

    from nmlcli.products.features import Features
    from nmlcli.provenance import Record

    values = np.random.default_rng(0).standard_normal((BLOCK, COLUMNS), dtype=np.float32)

    def blocks(count: int) -> Any:
        for start in range(0, ROWS, count):
            yield values[start % BLOCK :][: min(count, ROWS - start)]

    record = Record("features", "0" * 32, "embed", classes=("a", "b"), rows=ROWS, columns=COLUMNS)
    ids = [f"n{i // 1300:08d}/n{i // 1300:08d}_{i}" for i in range(ROWS)]
    return Features(record, ids, np.arange(ROWS) % 2, None, values.dtype, blocks, "made")


def write(file: str) -> Work:
    """Our writer into a file, or a stream to stdout."""
    from nmlcli.products import hdf5, stream  # noqa: F401
    from nmlcli.products.formats import write_features

    features = made()
    return lambda: write_features(None if file == "-" else file, features)


def read(file: str) -> Work:
    """Our reader of a file, or of a stream from stdin."""
    from nmlcli.products import hdf5, stream  # noqa: F401
    from nmlcli.products.formats import read_features

    return lambda: [None for _ in read_features(file).blocks(BLOCK)]


def read_and_sum(file: str) -> Work:
    """Our reader as a spectrum uses it: values that are finite, products of the rows."""
    import numpy as np

    from nmlcli.products import hdf5, stream  # noqa: F401
    from nmlcli.products.formats import read_features
    from nmlcli.stages.inputs import finite_blocks

    def work() -> None:
        gram = np.zeros((COLUMNS, COLUMNS), dtype=np.float32)
        for block in finite_blocks(read_features(file)):
            gram += block.T @ block

    return work


def h5py_read(file: str) -> Work:
    """A bare loop over blocks."""
    import h5py

    def work() -> None:
        with h5py.File(file) as held:
            for start in range(0, ROWS, BLOCK):
                held["features"][start : start + BLOCK]

    return work


def h5py_write(file: str) -> Work:
    """A bare loop over blocks, in chunks as large as ours, without checksums."""
    import h5py
    import numpy as np

    from nmlcli.products.features import pack_features

    features = made()
    beside, text = pack_features(features)[0], np.bytes_(features.record.to_json().encode())

    def work() -> None:
        with h5py.File(file, "w", libver=("v110", "v110")) as held:
            for name, array in {"nml": text, **beside}.items():
                held[name] = array
            dataset = held.create_dataset("features", (ROWS, COLUMNS), "f4", chunks=(256, COLUMNS))
            for start, block in zip(range(0, ROWS, BLOCK), features.blocks(BLOCK), strict=True):
                dataset[start : start + BLOCK] = block
        flush(file)

    return work


def tofile(file: str) -> Work:
    """numpy's own way of writing."""
    features = made()

    def work() -> None:
        with Path(file).open("wb") as out:
            for block in features.blocks(BLOCK):
                block.tofile(out)
        flush(file)

    return work


def readinto(file: str) -> Work:
    """Plain reads into one buffer."""
    buffer = bytearray(BLOCK * COLUMNS * 4)

    def work() -> None:
        with Path(file).open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass

    return work


WORKS = {
    work.__name__: work for work in (write, read, read_and_sum, h5py_read, h5py_write, tofile, readinto)
}


def flush(file: str) -> None:
    """fsync a file by its name."""
    handle = os.open(file, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def run(words: list[str], feeder: list[str] | None = None, drain: bool = False) -> tuple[float, int]:
    """Seconds and peak of memory in bytes of a process, fed by another and drained by cat if asked.

    A process of ours tells its seconds itself, without its start.
    """
    with Path(os.devnull).open("r+b") as nothing:
        started = time.perf_counter()
        before = subprocess.Popen(feeder, stdout=subprocess.PIPE) if feeder else None
        process = subprocess.Popen(
            words, stdin=before.stdout if before else nothing, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE if drain else nothing,
        )  # fmt: skip
        after = subprocess.Popen(["cat"], stdin=process.stdout, stdout=nothing) if drain else None
        for pipe in (before and before.stdout, drain and process.stdout):
            if pipe:
                pipe.close()
        told = process.stderr.read().decode() if process.stderr else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for other in (before, after):
            if other:
                other.wait()
        seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{words} ended with {process.returncode}: {told}")
    return float(told) if told else seconds, used.ru_maxrss * 1024


def ours(work: Callable[[str], Work], file: str, **pipes: Any) -> Run:
    """A piece of work in a process of its own."""
    return lambda: run([sys.executable, __file__, "child", work.__name__, file], **pipes)


def compare(case: str, runs: int, size: int, **alternatives: Run) -> None:
    """Run them in turns; say the megabytes a second of each, and how ours compare."""
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in alternatives}
    for _ in range(runs):
        for name, work in alternatives.items():
            found[name].append(work())
    speeds = {name: [size / 1e6 / seconds for seconds, _ in each] for name, each in found.items()}
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    base, others = medians["ours"], {name: medians[name] for name in medians if name != "ours"}
    peak = statistics.median(peak for _, peak in found["ours"])
    say(case, ours=base, lowest=min(speeds["ours"]), highest=max(speeds["ours"]), peak_mb=peak / 1e6,
        **others, **{f"ratio_to_{name}": base / value for name, value in others.items()})  # fmt: skip


def bench(runs: int, folder: Path) -> None:
    """All cases, in files of one folder."""
    files = {kind: str(folder / f"features{kind}") for kind in (".h5", ".safetensors")}
    bare, other, stream = str(folder / "bare.h5"), str(folder / "other"), files[".safetensors"]
    for file in files.values():
        ours(write, file)()
    ours(h5py_write, bare)()
    size = Path(stream).stat().st_size
    compare("write", runs, size, cat=lambda: run(["cat", stream], drain=True),
            ours=ours(write, "-", drain=True))  # fmt: skip
    compare("read", runs, size, cat=lambda: run(["cat"], ["cat", stream]),
            ours=ours(read, "-", feeder=["cat", stream]))  # fmt: skip
    for kind, file in files.items():
        compare(f"write {kind}", runs, size, h5py=ours(h5py_write, other), tofile=ours(tofile, other),
                ours=ours(write, f"{other}{kind}"))  # fmt: skip
        compare(f"read {kind}", runs, size, h5py=ours(h5py_read, bare), readinto=ours(readinto, stream),
                h5py_with_checksums=ours(h5py_read, files[".h5"]), ours=ours(read, file))  # fmt: skip
    compare("read .h5 and sum", runs, size, without_checksums=ours(read_and_sum, bare),
            ours=ours(read_and_sum, files[".h5"]))  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        work = WORKS[sys.argv[2]](sys.argv[3])
        begun = time.perf_counter()
        work()
        sys.stderr.write(f"{time.perf_counter() - begun}")
    else:
        with tempfile.TemporaryDirectory() as temporary:
            bench(int(sys.argv[1]) if len(sys.argv) > 1 else 5, Path(temporary))
