"""``python -m mushra``: the command ``mushra``."""

from qincodec.start import start


def main() -> None:
    """Entry point of the command."""
    start("mushra.cli.main")


if __name__ == "__main__":
    main()
