"""The report as a folder for a browser: tables, figures, and clips to hear."""

from evaluation.report.html.write import write_html

__all__ = ["write_html"]
