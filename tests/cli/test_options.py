"""Shared options: lists, stdin, menus."""

import io
from dataclasses import dataclass
from inspect import signature

import pytest
import typer

from nmlcli.cli import options
from nmlcli.data.sources import SourceOptions
from nmlcli.errors import NmlError, UsageError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def piped(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def at_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal())


def test_given_inputs_are_taken_as_they_are(at_terminal):
    assert options.inputs(["b.h5", "a.h5", "b.h5"]) == ["b.h5", "a.h5", "b.h5"]


@pytest.mark.parametrize("values", [None, []])
def test_a_left_out_input_is_stdin_in_a_pipe(piped, values):
    assert options.inputs(values) == ["-"]


def test_a_left_out_input_is_an_error_at_a_terminal(at_terminal):
    with pytest.raises(UsageError, match="FEATURES is missing"):
        options.inputs(None, "FEATURES")


def test_a_closed_stdin_is_no_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError):
        options.inputs(None)


def test_a_list_stands_for_its_lines(tmp_path, piped):
    listed = tmp_path / "list.txt"
    listed.write_text("a.h5\n# a remark\n\n  b c.h5  \r\n@literal\n")
    assert options.inputs(["x", f"@{listed}", "y"]) == ["x", "a.h5", "b c.h5", "@literal", "y"]
    assert options.split(f"@{listed}") == ["a.h5", "b c.h5", "@literal"]


def test_an_empty_list_never_becomes_stdin(tmp_path, piped):
    listed = tmp_path / "list.txt"
    listed.write_text("\n")
    with pytest.raises(UsageError, match="empty"):
        options.inputs([f"@{listed}"])


def test_a_list_that_cannot_be_read(tmp_path):
    with pytest.raises(NmlError, match=r"cannot read the list .*none.txt: No such file"):
        options.expand([f"@{tmp_path}/none.txt"])
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NmlError, match="it is not text"):
        options.expand([f"@{tmp_path}/bytes"])


def test_stdin_is_read_once():
    with pytest.raises(UsageError, match="twice"):
        options.inputs(["-", "a.h5", "-"])


def test_one_input(piped):
    assert options.one_input("a.csv") == "a.csv"
    assert options.one_input(None) == "-"


@pytest.mark.parametrize(
    ("value", "parts"), [(None, []), ("", []), ("a", ["a"]), ("a, b,,c", ["a", "b", "c"])]
)
def test_comma_lists(value, parts):
    assert options.split(value) == parts


@dataclass(frozen=True)
class Row:
    help: str


MENU = {"symmetric": Row("to another class"), "pairflip": Row("to the next"), "plain": Row("")}


@pytest.mark.parametrize(
    ("declared", "names", "metavar"),
    [
        ("--reuse", ["--reuse"], None),
        ("-o --out FILE", ["-o", "--out"], "FILE"),
        ("--residual/--no-residual", ["--residual/--no-residual"], None),
    ],
)
def test_an_option_is_declared_as_its_help_writes_it(declared, names, metavar):
    option = options.option(declared, "Text.", "Panel", min=1)
    assert [option.default, *option.param_decls] == names
    assert (option.metavar, option.help, option.rich_help_panel) == (metavar, "Text.", "Panel")
    assert option.min == 1


def test_options_on_data_reach_a_command_as_one_argument():
    @options.with_source
    def command(data: str, *, source: SourceOptions, quiet: bool = False) -> None:
        seen.append((data, source, quiet))

    seen = []
    app = typer.Typer()
    app.command()(command)
    app(["x", "--limit", "3", "--classes", "a, b", "--id-column", "key"], standalone_mode=False)
    wanted = SourceOptions(limit=3, classes=("a", "b"), id_column="key")
    assert seen == [("x", wanted, False)]
    defaults = {
        name: each.default for name, each in signature(options.source_options).parameters.items()
    }
    assert options.source_options(**defaults) == SourceOptions()


def test_an_option_made_from_a_menu():
    option = options.choice(MENU, "--kind KIND", "The kind")
    assert option.help == "The kind: symmetric (to another class), pairflip (to the next), plain."
    assert option.autocompletion("p") == [("pairflip", "to the next"), ("plain", "")]
    assert option.callback("plain") == "plain"
    assert option.callback(None) is None
    with pytest.raises(typer.BadParameter, match=r"no 'pairfilp': did you mean pairflip\?"):
        option.callback("pairfilp")
    with pytest.raises(typer.BadParameter, match="choose from symmetric, pairflip, plain"):
        option.callback("zzz")


def test_an_option_of_several_from_a_menu():
    option = options.choice(MENU, "--kinds KINDS[,…]", "Kinds", several=True)
    assert option.callback("plain,pairflip") == "plain,pairflip"
    assert option.autocompletion("plain,s") == [("plain,symmetric", "to another class")]
    with pytest.raises(typer.BadParameter, match="no 'x'"):
        option.callback("plain,x")
