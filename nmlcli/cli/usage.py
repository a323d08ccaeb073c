"""How commands are laid out in help, and how a wrong call is worded.

Help is plain text at the terminal's width: options under the headings that their declarations give,
arguments named as the interface writes them. Usage errors become one line with what was probably meant.
"""

import re
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup, TyperOption

from nmlcli.errors import UsageError, meant

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

_BOUNDS = (
    (re.compile(r"([^\s\[]+)<=x<=([^\s;\]]+)"), r"from \1 to \2"),
    (re.compile(r"x>=([^\s;\]]+)"), r"at least \1"),
)  # fmt: skip
GENERAL = "General"  # the last heading: what every command has
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(TyperCommand):
    """A command whose help groups its options by their headings (`rich_help_panel`)."""

    def collect_usage_pieces(self, ctx: "Context") -> list[str]:
        """`[OPTIONS]`, then the arguments as they are declared."""
        return ["[OPTIONS]", *(name_of(p) for p in self.params if p.param_type_name == "argument")]

    def format_options(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write a section of arguments and one of options for each heading, in declared order."""
        for heading, rows in sections(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=26)


class Group(TyperGroup):
    """A command with commands below it, which its help shows first, each with its whole sentence."""

    def get_help_option(self, ctx: "Context") -> "TyperOption | None":
        """--help with a plain default: reading an absent one would import the validator, 50 ms."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write a line a command, wrapped rather than cut."""
        with formatter.section("Commands"):
            rows = [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
            formatter.write_dl(rows)

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Usage, text, commands, options: the commands are what one looks for."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_commands(ctx, formatter)
        with formatter.section("Options"):
            formatter.write_dl([record(parameter, ctx) for parameter in self.get_params(ctx)])
        self.format_epilog(ctx, formatter)


def sections(command: TyperCommand, ctx: "Context") -> dict[str, list[tuple[str, str]]]:
    """The records of what a command takes, below the headings of its help, in declared order."""
    found: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    parameters: list[Any] = command.get_params(ctx)
    for parameter in parameters:
        heading = "Arguments" if parameter.param_type_name == "argument" else "Options"
        if parameter.name == "help":
            heading = GENERAL
        found.setdefault(parameter.rich_help_panel or heading, []).append(record(parameter, ctx))
    found[GENERAL] = found.pop(GENERAL, [])
    return {heading: rows for heading, rows in found.items() if rows}


def record(parameter: Any, ctx: "Context") -> tuple[str, str]:
    """How a parameter is written, and its text with default and bounds in words."""
    name, text = parameter.get_help_record(ctx)
    for shown, plain in _BOUNDS:
        text = shown.sub(plain, text)
    if parameter.param_type_name == "option":
        return name, text
    return name_of(parameter), text.removesuffix("[required]").strip()


def name_of(argument: Any) -> str:
    """An argument as the interface writes it: its metavar, else its name in capitals."""
    return str(argument.metavar or argument.name.upper())


def reworded(error: Any) -> UsageError:
    """A usage error of the command line library as ours: what is wrong and what to do."""
    context: Any = getattr(error, "ctx", None)
    command: Any = getattr(error, "cmd", None)
    if type(error).__name__ == "NoSuchOption":
        known = [name for parameter in command.get_params(context) for name in parameter.opts]
        near = meant(error.option_name, known)
        return UsageError(
            f"no option {error.option_name}", near if near.startswith("did") else _see(context)
        )
    if isinstance(command, TyperGroup) and (
        match := re.match(r"No such command '(.*?)'", error.message)
    ):
        return UsageError(f"no command {match[1]!r}", meant(match[1], command.commands))
    parameter = getattr(error, "param", None)
    if parameter is not None:
        option = parameter.param_type_name == "option"
        name = max(parameter.opts, key=len) if option else name_of(parameter)
        if not error.message:
            return UsageError(f"{name} is missing", _see(context))
        cause = error.__cause__
        if isinstance(cause, ValueError) and hasattr(cause, "errors"):
            fault = cause.errors()[0]
            return UsageError(f"{name} is {fault['input']!r}", _wanted(parameter, fault["msg"]))
        return UsageError(f"{name}: {_one_line(error.message)}")
    return UsageError(_one_line(error.format_message()))


def _see(context: Any) -> str:
    return f"see {context.command_path} --help" if context else "see --help"


def _wanted(parameter: Any, message: str) -> str:
    """What a number should have been, from the validator's words and the declared bounds."""
    low, high = parameter.min, parameter.max
    if "than or equal" in message and low is not None:
        return f"give a number from {low} to {high}" if high is not None else f"give {low} or more"
    if "than or equal" in message:
        return f"give {high} or less"
    match = re.search(r"valid (integer|number)", message)
    kind = {"integer": "a whole number", "number": "a number"}.get(match[1] if match else "")
    return f"give {kind}" if kind else _one_line(message)


def _one_line(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
