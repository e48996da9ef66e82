"""All tables of a run and all notes under them, in the order of a report."""

from __future__ import annotations

import pandas as pd

from evaluation.report.more_tables import codebook_table, embedding_notes, embedding_tables
from evaluation.report.tables import Table, build_table, notes
from evaluation.results import Results


def all_tables(results: Results, summary: pd.DataFrame) -> list[Table]:
    """The main table, one per embedding, and the codebooks' where there are any."""
    codebooks = codebook_table(results, summary)
    main = build_table(results, summary)
    return [main, *embedding_tables(results, summary), *([codebooks] if codebooks else [])]


def all_notes(results: Results, summary: pd.DataFrame) -> list[str]:
    """The notes of all tables."""
    return notes(results, summary) + embedding_notes(results, summary)
