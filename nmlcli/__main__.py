"""`python -m nmlcli`, the same as `nml`."""

from nmlcli.cli.main import main

if __name__ == "__main__":
    main()
