"""The one catch: every kind of end is one line on stderr and its exit code."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pexpect
import pytest
import typer

from nmlcli.cli import main
from nmlcli.errors import InvalidInput, NmlError, Terminated, ThresholdMissed, UsageError
from tests.cli.processes import CLEAN, command, nml

FULL = Path("/dev/full")
LINE = b'{"kind": "result", "task": "t", "method": "lp", "role": "id", "accuracy": 0.5}\n'


@pytest.fixture
def raising(monkeypatch):
    """Make a command `fall` that raises what it is told to."""

    def install(error):
        def fall() -> None:
            """Raise."""
            raise error

        app = typer.Typer(cls=main.Group, add_completion=False, rich_markup_mode=None)
        app.command("fall")(fall)
        app.command("stand")(lambda: None)
        monkeypatch.setattr(main, "app", app)
        monkeypatch.delenv("NML_DEBUG", raising=False)

    return install


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NmlError("x.h5 is odd", "mend it"), 1, "nml fall: x.h5 is odd: mend it\n"),
        (InvalidInput("two\nlines"), 1, "nml fall: two lines\n"),
        (InvalidInput("é\x1b[2J\x9b\x07\x7f\0ж"), 1, "nml fall: é\\x1b[2J\\x9b\\x07\\x7f\\x00ж\n"),
        (UsageError("both given", "give one"), 2, "nml fall: both given: give one\n"),
        (ThresholdMissed("accuracy 0.1 is below 0.2"), 3, "nml fall: accuracy 0.1 is below 0.2\n"),
        (KeyboardInterrupt(), 130, ""),
        (Terminated(), 143, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.h5"), 1,
            "nml fall: out.h5: No space left on device\n",
        ),
        (MemoryError(), 1, "nml fall: not enough memory: take smaller batches, or fewer rows\n"),
        (
            ZeroDivisionError("division by zero"), 1,
            "nml fall: unexpected ZeroDivisionError (division by zero): set NML_DEBUG=1 to see where\n",
        ),
    ],
)  # fmt: skip
def test_every_error_is_one_line_and_its_code(raising, capsys, error, code, line):
    raising(error)
    assert main.run(["fall"]) == code
    assert capsys.readouterr() == ("", line)


def test_debug_lets_the_traceback_through(raising, capsys, monkeypatch):
    raising(NmlError("odd"))
    monkeypatch.setenv("NML_DEBUG", "1")
    assert main.run(["fall"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_success_is_silent_and_zero(raising, capsys):
    raising(None)
    assert main.run(["stand"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["corupt"], "nml: no command 'corupt': did you mean corrupt?\n"),
        (["corrupt", "x", "--ratoi", "1"], "nml corrupt: no option --ratoi: did you mean --ratio?\n"),
        (
            ["corrupt", "x.csv", "--ratio", "0.1", "--kind", "symetric"],
            "nml corrupt: --kind: no 'symetric': did you mean symmetric?\n",
        ),
        (["corrupt", "x.csv", "--ratio"], "nml corrupt: option '--ratio' requires an argument\n"),
        (["corrupt", "x.csv"], "nml corrupt: --ratio is missing: --kind symmetric needs it\n"),
        (["embed", "x.csv"], "nml embed: --model is missing: see nml embed --help\n"),
        (["tune", "x.h5", "--seeds", "0"], "nml tune: --seeds is '0': give 1 or more\n"),
        (["tune", "x.h5", "--seeds", "two"], "nml tune: --seeds is 'two': give a whole number\n"),
        (
            ["tune", "x.h5", "--seed", "-1"],
            "nml tune: --seed: a seed is a whole number from 0 to 2^63 - 1\n",
        ),
        (["tune", "x.h5", "--method", "lp,mpl"], "nml tune: --method: no 'mpl': did you mean mlp?\n"),
        (["--vrsion"], "nml: no option --vrsion: did you mean --version?\n"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_with_what_was_meant(capsys, arguments, line):
    assert main.run(arguments) == 2
    assert capsys.readouterr() == ("", line)


def test_remarks_of_the_library_are_lines_of_the_command(raising, capsys, monkeypatch):
    import logging
    import warnings

    def talk() -> None:
        """Talk."""
        logging.getLogger("nmlcli.stages.talk").info("made %d rows", 3)
        logging.getLogger("nmlcli.stages.talk").debug("detail")
        logging.getLogger("timm.models").warning("a library's own")
        warnings.warn("a library's own", stacklevel=1)

    raising(None)
    main.app.command("talk")(talk)
    assert main.run(["talk"]) == 0
    assert capsys.readouterr() == ("", "nml talk: made 3 rows\n")


# A process that works until it is stopped: the start of nml with a command that writes a file.
WORKING = textwrap.dedent("""
    import sys, time
    from nmlcli.atomic import replacing
    from nmlcli.cli import main, render

    def work() -> None:
        "Work."
        with render.progress("work") as advance, replacing(sys.argv[2]) as temporary:
            temporary.write_text("half")
            sys.stderr.write("ready\\n")
            sys.stderr.flush()
            for done in range(3000):
                advance(done, 3000, loss=1.0)
                time.sleep(0.02)

    main.app.command("work", context_settings={"allow_extra_args": True})(work)
    main.main()
""")


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_leaves_nothing_behind(tmp_path, number, code):
    words = [sys.executable, "-c", WORKING, "work", str(tmp_path / "out.txt")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, env=CLEAN)
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    process.send_signal(number)
    if number == signal.SIGTERM:  # sent twice by `timeout`, to the process and to its group
        for _ in range(200):
            process.send_signal(number)
            time.sleep(0.001)
    assert process.wait(timeout=20) == code
    assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_interrupt_at_a_terminal_cleans_the_bar_and_shows_the_cursor(tmp_path):
    words = ["-c", WORKING, "work", str(tmp_path / "out.txt")]
    terminal = pexpect.spawn(sys.executable, words, env=CLEAN, dimensions=(24, 80), timeout=30)
    terminal.expect("ready")
    terminal.expect("loss 1.000")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    assert b"Traceback" not in terminal.before
    assert b"\x1b[?25h" in terminal.before  # the cursor is shown again
    terminal.close()
    assert terminal.exitstatus == 130


@pytest.mark.process
def test_a_closed_pipe_ends_as_other_filters_do(tmp_path):
    lines = tmp_path / "results.jsonl"
    lines.write_text("".join(
        f'{{"kind": "result", "task": "t", "method": "lp", "accuracy": 0.5, "run": {i}}}\n'
        for i in range(3000)
    ))  # fmt: skip
    words = command("report", str(lines), "--by", "run,method", "--partial")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=CLEAN)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b'{"kind": "comparison"')
    process.stdout.close()
    assert process.wait(timeout=30) == -signal.SIGPIPE
    assert process.stderr.read() == b""


@pytest.mark.process
@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["--help"], "nml"), (["--version"], "nml"), (["report", "-"], "nml report")],
)
def test_a_full_disk_behind_stdout_is_one_line(arguments, name):
    with FULL.open("wb") as full:
        done = subprocess.run(
            command(*arguments), input=LINE, stdout=full, stderr=subprocess.PIPE, env=CLEAN
        )
    assert done.returncode == 1
    assert done.stderr.decode() == f"{name}: stdout: No space left on device\n"


@pytest.mark.process
def test_closed_streams_are_borne():
    script = f"{shlex.join(command('report', 'none.jsonl'))} 2>&-; echo $?"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=CLEAN)
    assert (done.stdout, done.stderr) == ("1\n", "")
    script = f"{shlex.join(command('--version'))} >&-; echo $? >&2"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=CLEAN)
    assert done.stderr == "nml: stdout is closed\n1\n"


@pytest.mark.process
def test_commands_given_their_inputs_leave_stdin_alone(tmp_path):
    results = tmp_path / "r.jsonl"
    results.write_bytes(LINE)
    read, write = os.pipe()  # nothing is ever written, so whoever reads it waits
    try:
        started = time.monotonic()
        done = subprocess.run(
            command("report", str(results)), stdin=read, capture_output=True, env=CLEAN, timeout=60
        )
    finally:
        os.close(write)
        os.close(read)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60


@pytest.mark.process
def test_binary_products_are_refused_at_a_terminal_before_any_work(tmp_path):
    missing = str(tmp_path / "not-there.h5")
    terminal = pexpect.spawn(
        *(lambda w: (w[0], w[1:]))(command("tune", missing)), env=CLEAN, timeout=60
    )
    terminal.expect(pexpect.EOF)
    assert terminal.before == b"nml tune: the product is binary: give -o FILE or pipe it\r\n"
    terminal.close()
    assert terminal.exitstatus == 2


@pytest.mark.process
def test_a_left_out_input_at_a_terminal_is_a_usage_error():
    words = command("report")
    terminal = pexpect.spawn(words[0], words[1:], env=CLEAN, timeout=60)
    terminal.expect(pexpect.EOF)
    assert terminal.before.startswith(b"nml report: ")
    terminal.close()
    assert terminal.exitstatus == 2


@pytest.mark.process
def test_a_left_out_input_in_a_pipe_is_read_from_stdin():
    done = nml("report", stdin=LINE)
    assert done.returncode == 0, done.stderr
    assert b'"value": 0.5' in done.stdout
