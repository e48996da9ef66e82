"""``python -m qincodec``, which torchrun can start: the command ``qincodec``."""

from qincodec.cli import main

main()
