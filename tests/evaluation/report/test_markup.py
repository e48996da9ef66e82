"""LaTeX that a paper can include unchanged."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import SI_SDR, make_results, troubled

from evaluation.report.markup import latex, latex_text
from evaluation.report.notes import notes
from evaluation.report.tables import caption, compact_table
from evaluation.results import Results


def wide() -> Results:
    """The longest names and numbers, and more metrics than fit side by side."""
    codecs = {"qincodec-best": 0.0, "encodec_48khz": 2.0, "opus": 3.0}
    results = make_results(
        codecs=codecs, control=True, declared=True, rates=(8, 128), rate_factor={"opus": 1.2}
    )
    for number in range(7):
        info = dataclasses.replace(
            SI_SDR, name=f"m{number}", label=f"FD-OL3-{number}", unit="", per_clip=True
        )
        results.metrics.append(info)
        results.clips[info.name] = results.clips["ms_mel"] * 100
        results.clips[f"{info.name}_reason"] = None
    return results


@pytest.mark.parametrize("make", [troubled, wide])
def test_latex_compiles_and_fits_two_columns(make: Any, tmp_path: Path) -> None:
    program = next(filter(None, map(shutil.which, ("pdflatex", "tectonic"))), None)
    if program is None:
        pytest.skip("needs pdflatex or tectonic (apt-get install texlive-latex-recommended)")
    results = make()
    lines = [note.text for note in notes(results, results.summary)]
    table = latex(compact_table(results, results.summary), caption(results, results.summary), lines)
    body = f"\\begin{{document}}\n{table}\\end{{document}}\n"
    preamble = "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs}\n"
    (tmp_path / "page.tex").write_text(preamble + body, encoding="utf-8")
    options = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in program else ["--keep-logs"]
    done = subprocess.run([program, *options, "page.tex"], cwd=tmp_path, capture_output=True, text=True)
    log = (tmp_path / "page.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0 and (tmp_path / "page.pdf").stat().st_size > 0, log[-3000:]
    assert "Overfull" not in log and "Missing character" not in log, log[-3000:]


def test_latex_text() -> None:
    assert latex_text(r"a_b\c{d}~^#$&%") == (
        r"a\_b\textbackslash{}c\{d\}\textasciitilde{}\textasciicircum{}\#\$\&\%"
    )
    assert latex_text("--no-align, ---, a–b, -1") == "-{}-no-align, -{}-{}-, a--b, -1"
    assert latex_text("two\n\nparagraphs") == "two paragraphs"
