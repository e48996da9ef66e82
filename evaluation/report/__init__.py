"""Reports of a run: on the terminal, as files, as plots. Pure functions of `evaluation.results.Results`."""

from evaluation.report.files import write_all
from evaluation.report.terminal import print_report, render

__all__ = ["print_report", "render", "write_all"]
