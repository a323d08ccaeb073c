"""Placeholder, replaced by the command line proper."""


def main() -> None:
    """Start."""
