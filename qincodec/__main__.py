"""``python -m qincodec``: the command ``qincodec``, in the form that torchrun starts."""

from qincodec.start import start


def main() -> None:
    """Entry point of the command."""
    start("qincodec.cli")


if __name__ == "__main__":
    main()
