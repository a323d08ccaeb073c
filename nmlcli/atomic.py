"""Whole-or-nothing files: what is written appears under its name complete, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nmlcli.errors import NmlError


@contextmanager
def replacing(name: str | Path) -> Iterator[Path]:
    """Give a temporary path beside the named file; on success flush it and rename it to that name.

    On any exception, an interrupt included, the temporary file goes and an older file stays. A
    link is followed; a device or pipe (`/dev/null`, `>(…)`) is written as it is. Raises NmlError
    where the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(name))
    if target.is_dir():
        raise NmlError(f"{name} is a folder", "give a file name")
    special = (
        Path(name).exists() and not Path(name).is_file()
    )  # as it is named: a pipe has no real path
    temporary = Path(name) if special else _temporary_beside(target)
    try:
        yield temporary
        if not special:
            _flush(temporary)
            temporary.replace(target)
            _flush(target.parent)
    except BrokenPipeError:
        raise  # a reader has gone, which is for the command line to take quietly
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise  # another file's trouble, met while this one was being written
        raise NmlError(f"cannot write {name}: {error.strerror or error}") from error
    finally:
        if not special:
            with suppress(FileNotFoundError):
                temporary.unlink()


def _temporary_beside(target: Path) -> Path:
    folder = target.parent
    if not folder.is_dir():
        raise NmlError(f"folder {folder} does not exist", "make it first")
    try:
        # The suffix stays, since writers choose the format by it.
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem[:100]}.", suffix=target.suffix[:20], dir=folder
        )
    except OSError as error:
        raise NmlError(f"cannot write into {folder}: {error.strerror}") from error
    os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    Path(name).chmod(0o666 & ~umask)  # mkstemp makes private files; products get the usual rights
    return Path(name)


def _flush(path: Path) -> None:
    """fsync a file or folder, so that a rename never outlives its contents in a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
