"""The start of `nml` and `python -m nmlcli`: light, so that Ctrl-C is quiet from the first moment."""

import sys


def main() -> None:
    """Run the command that the process was called with, and leave."""
    try:
        from nmlcli.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
