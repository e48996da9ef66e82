"""The report as a folder to open in a browser: tables, figures, and the clips to listen to."""

from evaluation.report.html.write import write_html

__all__ = ["write_html"]
