"""``python -m evaluation``: the command ``evaluate``, also if its program is not on the path."""

from qincodec.start import start


def main() -> None:
    """Entry point of the command."""
    start("evaluation.cli.evaluate")


if __name__ == "__main__":
    main()
