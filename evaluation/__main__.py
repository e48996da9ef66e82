"""``python -m evaluation``: the command ``evaluate``, in the form torchrun starts."""

from evaluation.cli import main

main()
