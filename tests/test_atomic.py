"""Files appear whole or not at all, whatever stops the writer."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nmlcli.atomic import replacing
from nmlcli.errors import InvalidInput, NmlError, Terminated


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "x.csv").write_text("older")
    return tmp_path


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_replaced_at_the_end_and_not_before(folder):
    with replacing(folder / "x.csv") as path:
        path.write_text("newer")
        assert path.parent == folder and path.suffix == ".csv" and path.name.startswith(".")
        assert (folder / "x.csv").read_text() == "older"
    assert (folder / "x.csv").read_text() == "newer" and names(folder) == ["x.csv"]


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, Terminated, SystemExit, InvalidInput("x"), BrokenPipeError]
)
def test_an_exception_leaves_the_older_file_alone(folder, error):
    with (
        pytest.raises(error if isinstance(error, type) else type(error)),
        replacing(folder / "x.csv") as path,
    ):
        path.write_text("half")
        raise error
    assert (folder / "x.csv").read_text() == "older" and names(folder) == ["x.csv"]


def test_a_failed_write_is_said_of_the_named_file(folder):
    with (
        pytest.raises(NmlError, match=r"cannot write .*x\.csv: No space left"),
        replacing(folder / "x.csv"),
    ):
        raise OSError(28, "No space left on device")
    assert (folder / "x.csv").read_text() == "older" and names(folder) == ["x.csv"]


def test_another_file_keeps_its_own_trouble(folder):
    with pytest.raises(FileNotFoundError), replacing(folder / "x.csv"):
        (folder / "input.csv").read_text()


def test_a_writer_that_takes_its_file_away_is_noticed(folder):
    with pytest.raises(NmlError, match="cannot write"), replacing(folder / "x.csv") as path:
        path.unlink()
    assert (folder / "x.csv").read_text() == "older"


def test_a_link_is_followed(folder):
    (folder / "deep").mkdir()
    (folder / "deep/y.csv").write_text("older")
    (folder / "link.csv").symlink_to("deep/y.csv")
    with replacing(folder / "link.csv") as path:
        assert path.parent == folder / "deep"  # where a rename cannot cross file systems
        path.write_text("newer")
    assert (folder / "link.csv").is_symlink() and (folder / "deep/y.csv").read_text() == "newer"


def test_a_link_to_nothing_makes_what_it_points_to(folder):
    (folder / "link.csv").symlink_to("new.csv")
    with replacing(folder / "link.csv") as path:
        path.write_text("newer")
    assert (folder / "link.csv").is_symlink() and (folder / "new.csv").read_text() == "newer"


def test_devices_and_pipes_are_written_as_they_are(folder):
    with replacing("/dev/null") as path:
        assert str(path) == "/dev/null"
        path.write_text("x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116
    with pytest.raises(NmlError, match="cannot write /dev/full: No space left on device"):  # noqa: SIM117
        with replacing("/dev/full") as path:
            path.write_text("x")
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with replacing(folder / "pipe") as path:
        path.write_text("through")
    assert os.read(reader, 99) == b"through" and (folder / "pipe").is_fifo()
    os.close(reader)


def test_usual_rights(folder):
    before = os.umask(0o027)
    try:
        with replacing(folder / "y.csv") as path:
            path.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "y.csv").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["missing/x.csv", "x.csv/y.csv"])
def test_a_folder_that_is_none(folder, name):
    with pytest.raises(NmlError, match="does not exist: make it first"), replacing(folder / name):
        pytest.fail("it must not come this far")


def test_a_folder_is_no_file(folder):
    with pytest.raises(NmlError, match="is a folder: give a file name"), replacing(folder):
        pytest.fail("it must not come this far")


def test_a_folder_that_cannot_be_written(folder):
    """/proc is one even for root."""
    with pytest.raises(NmlError, match="cannot write into /proc"), replacing("/proc/self/x.csv"):
        pytest.fail("it must not come this far")


def test_long_names_have_room_for_a_temporary_one(folder):
    name = folder / ("ü" * 100 + ".jsonl")
    with replacing(name) as path:
        path.write_text("x")
    assert name.read_text() == "x"


@pytest.mark.process
def test_a_killed_writer_leaves_the_older_file_alone(folder):
    script = """
import sys, time
from nmlcli.atomic import replacing
with replacing(sys.argv[1]) as path:
    path.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", script, str(folder / "x.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert (folder / "x.csv").read_text() == "older"


def test_a_folder_that_is_read_only_is_one_error_and_keeps_the_older_file():
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "x.csv").write_text("older")
        Path(name).chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # permissions do not bind root
        try:
            with pytest.raises(NmlError, match="cannot write into"), replacing(f"{name}/x.csv"):
                raise RuntimeError("it was opened")
        finally:
            os.seteuid(user)
            Path(name).chmod(0o755)
        assert (Path(name) / "x.csv").read_text() == "older"
        assert names(Path(name)) == ["x.csv"]
