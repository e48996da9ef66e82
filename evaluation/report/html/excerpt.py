"""Results in a notebook: findings, the main table and folded warnings, as a piece of HTML."""

from __future__ import annotations

from evaluation.report.cells import BOLD
from evaluation.report.findings import FIRST, sentences, silence
from evaluation.report.html.page import STAMPS, fill_in
from evaluation.report.notes import notes
from evaluation.report.sharing import shareable_results
from evaluation.report.tables import build_table
from evaluation.results import Results


def excerpt(results: Results) -> str:
    """HTML without script, picture or style sheet; all text from the run is escaped."""
    results = shareable_results(results)
    said = notes(results, results.summary)
    table = build_table(results, results.summary)
    shown = [note for note in said if note.kind not in (*STAMPS, "definition", "reading", "attribution")]
    return fill_in(
        "excerpt.html.j2",
        table=table,
        stamps=[note.text for note in said if note.kind in STAMPS],
        findings=sentences(results)[:FIRST],
        silence=silence(results),
        scope=shown[0].text,
        notes=[note.text for note in shown[1:]],
        num_warnings=sum(note.severity == "warning" for note in shown),
        bold=f" {BOLD}." if table.has_best else "",
    )
