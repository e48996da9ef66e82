"""The findings in words: the records of `evaluation.statistics.findings` as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from evaluation.records import MetricInfo
from evaluation.report.cells import decimals
from evaluation.results import Finding, Results
from evaluation.statistics.few import FEW_RECORDINGS

#: Sentences that a report shows at once; the others are folded or follow.
FIRST = 2
#: Codecs of one verdict that a sentence names; more are counted.
_MAX_NAMED = 3
HOW = (
    "By paired tests at 5%, corrected (Holm) over all pairs and rates of each metric; [95% interval of the"
    " difference]"
)


def sentences(results: Results) -> list[str]:
    """One sentence for all asked rates with the same findings; the one for most rates first.

    They use the metrics that compare clips without an embedding, or the others if there are none.
    """
    plain = [metric for metric in results.metrics if not metric.embedding]
    metrics = {metric.name: metric for metric in plain or results.metrics}
    said: dict[tuple[object, ...], list[list[Finding]]] = {}
    for kbps in sorted({finding.kbps for finding in results.findings}):
        here = [f for f in results.findings if f.kbps == kbps and f.metric in metrics]
        if here:
            said.setdefault(tuple((f.metric, *_verdict(f)) for f in here), []).append(here)
    words = _Words(metrics, results.findings)
    groups = sorted(said.values(), key=lambda group: (-len(group), group[0][0].kbps))
    return [words.sentence(group) for group in groups]


def _verdict(finding: Finding) -> tuple[object, ...]:
    """Key of a finding: equal for findings that one clause can state."""
    if not finding.worse:
        return (True, frozenset({finding.best, *finding.ties}))
    return (bool(finding.ties), finding.best, frozenset(finding.ties), frozenset(finding.worse))


def silence(results: Results) -> str:
    """Why there is no sentence, if recordings are too few; "" otherwise."""
    most = results.tests["n_recordings"].max() if len(results.tests) else 0
    if results.findings or not 0 < most < FEW_RECORDINGS:
        return ""
    return f"No claim in words: it needs {FEW_RECORDINGS} recordings, and there are {most:.0f}"


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _named(codecs: Sequence[str]) -> str:
    return listed(codecs) if len(codecs) <= _MAX_NAMED else f"the other {len(codecs)}"


class _Words:
    def __init__(self, metrics: dict[str, MetricInfo], findings: Sequence[Finding]) -> None:
        self.metrics = metrics
        self.places = {}
        for name in metrics:
            own = [f for f in findings if f.metric == name]
            leads, widths = ([g(f) for f in own] for g in (lambda f: f.lead, lambda f: f.ci_high - f.ci_low))
            self.places[name] = decimals(pd.Series(leads, dtype=float), pd.Series(widths, dtype=float))

    def sentence(self, group: list[list[Finding]]) -> str:
        """Sentence for rates with the same verdicts.

        Args:
            group: the findings at each rate, in the order of the metrics.
        """
        rates = listed([f"{findings[0].kbps:g}" for findings in group])
        clauses = self._clauses([list(of_metric) for of_metric in zip(*group, strict=True)])
        return f"At {rates} kbps, {'; '.join(clauses)}"

    def _clauses(self, by_metric: list[list[Finding]]) -> Iterator[str]:
        """A clause per verdict; ties first.

        Args:
            by_metric: the finding of each metric at every rate.
        """
        verdicts: dict[tuple[object, ...], list[list[Finding]]] = {}
        for findings in by_metric:
            verdicts.setdefault(_verdict(findings[0]), []).append(findings)
        named: set[str] = set()
        for _, of_verdict in sorted(verdicts.items(), key=lambda entry: not entry[0][0]):
            first = of_verdict[0][0]
            labels = listed([self.metrics[findings[0].metric].label for findings in of_verdict])
            pair = len(first.ties) + len(first.worse) == 1
            if first.ties and not first.worse:
                two = f"{first.best} and {first.ties[0]} cannot be told apart by {labels}"
                yield (
                    two
                    if pair
                    else f"by {labels}, no test identifies the best of {len(first.ties) + 1} codecs"
                )
            elif first.ties:
                yield (
                    f"{first.best} cannot be told apart from {_named(first.ties)} by {labels}, and is better"
                    f" than {_named(first.worse)}"
                )
            else:
                than = "" if named == {first.best, first.nearest} else f" than {first.nearest}"
                rank = f"better{than}" if pair else f"the best of {len(first.worse) + 1}"
                leads = listed([self._lead(findings, pair) for findings in of_verdict])
                yield f"{first.best} is {rank} by {leads}"
            if pair:
                named = {first.best, *first.ties, *first.worse}

    def _lead(self, findings: list[Finding], pair: bool) -> str:
        """ "MS-Mel, by 0.16 [0.10, 0.21]"; for several rates, the smallest lead."""
        metric = self.metrics[findings[0].metric]
        form = f".{self.places[metric.name]}f"
        least = min(findings, key=lambda finding: finding.lead)
        amount = f"{least.lead:{form}}{' ' * bool(metric.unit)}{metric.unit}"
        amount += f" [{least.ci_low:{form}}, {least.ci_high:{form}}]"
        amount += "" if pair else f" ahead of {least.nearest}"
        if len(findings) > 1:
            return f"{metric.label} (least at {least.kbps:g} kbps: {amount})"
        return f"{metric.label}, by {amount}" if pair else f"{metric.label} ({amount})"
