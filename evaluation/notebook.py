"""The results that `evaluate` and `load` return: `evaluation.results` with displays for notebooks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import evaluation.results
from evaluation.loading import load_results_as
from evaluation.run.store import RunStore
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(repr=False)
class Results(evaluation.results.Results):
    """The results of a run. A notebook shows findings, table and notes; ``print`` shows a short table.

    Examples:
        >>> from evaluation import evaluate
        >>> results = evaluate("demo", "opus", 24, metrics="si_sdr", limit=2, out="run")
        >>> print(results)  # doctest: +ELLIPSIS
        codec     kbps       SI-SDR (dB) ↑
        ...
    """

    def __repr__(self) -> str:
        data, names = self.dataset, [condition.label for condition in self.conditions]
        of = ", ".join(metric.name for metric in self.metrics)
        return f"Results of {data.name}, {data.n_clips} clips: {of} of {', '.join(names)}"

    def __str__(self) -> str:
        from evaluation.report.notes import notes
        from evaluation.report.sharing import shareable_results
        from evaluation.report.tables import compact_table
        from evaluation.report.terminal import Report, print_wide

        results = shareable_results(self)
        said = notes(results, results.summary)
        lines = [said[0], *(note for note in said if note.kind in ("disclaimer", "unfinished", "weights"))]
        file = io.StringIO()
        print_wide(Report([compact_table(results, results.summary)], [note.text for note in lines]), file)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())

    def _repr_html_(self) -> str:
        from evaluation.report.html.excerpt import excerpt

        return excerpt(self)

    def plot(self, metrics: str | Sequence[str] | None = None) -> Figure:
        """A figure of metrics over the measured rate, with intervals; ``savefig`` writes it to a file.

        Args:
            metrics: names, as a list or with commas; None for the metrics without an embedding, or all if
                every metric has one.

        Raises:
            UserError: the run does not have the metric.
        """
        from evaluation.report.plots import rate_distortion
        from evaluation.report.tables import with_noise_floor

        known = {metric.name: metric for metric in self.metrics}
        if isinstance(metrics, str):
            metrics = [name.strip() for name in metrics.split(",")]
        for name in metrics or ():
            if name not in known:
                raise UserError(f"the run has no metric '{name}'; it has {', '.join(known)}")
        plain = [name for name in known if not known[name].embedding]
        chosen = [known[name] for name in metrics or plain or known]
        floor = any(metric.embedding for metric in chosen)
        return rate_distortion(self, with_noise_floor(self, self.summary) if floor else self.summary, chosen)

    def to_latex(self) -> str:
        r"""The ``table*`` of ``table.tex``, for ``\usepackage{booktabs}``."""
        from evaluation.report.files import latex_of
        from evaluation.report.sharing import shareable_results

        return latex_of(shareable_results(self))


def load(folder: str | Path) -> Results:
    """Results of the run in ``folder``, complete or not. Raises UserError if ``folder`` is not a run.

    Examples:
        >>> from evaluation import evaluate, load
        >>> results = evaluate("demo", "opus", 24, metrics="si_sdr", limit=2, out="run")
        >>> load("run")
        Results of demo, 2 clips: si_sdr of opus@24
    """
    with RunStore(Path(folder), write=False) as store:
        return load_results_as(Results, store, lambda *_: None)


open_results = load  # its earlier name
