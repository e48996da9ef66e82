"""The statistics of `Results`, which gets them as functions because it cannot import this package."""

from __future__ import annotations

from evaluation.results import Analysis
from evaluation.statistics.bd_rate import bd_rate
from evaluation.statistics.findings import findings
from evaluation.statistics.recordings import paired_tests, summarize


def analysis(seed: int) -> Analysis:
    """Functions for the numbers of a run; ``seed`` is the one of its settings."""
    return Analysis(
        summary=lambda results: summarize(results, seed=seed),
        tests=lambda results: paired_tests(results, seed=seed),
        bd_rate=lambda results: bd_rate(results, results.summary),
        findings=lambda results: findings(results, results.summary, results.tests),
    )
