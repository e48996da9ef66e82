"""Computes the numbers of the paper's tables and figures in one run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from baselines import weights
from baselines.registry import missing_weights, unavailable
from evaluation.datasets import load_dataset
from evaluation.engine.conditions import PreparedCondition, prepare_conditions
from evaluation.engine.request import Request, parse_request
from evaluation.paper import printed as content
from evaluation.paper.latents import LatentError, latent_error
from evaluation.paper.listening import listening_figure, read_listening
from evaluation.paper.models import Model, find_models, parse_models
from evaluation.paper.tables import OPENL3, Reproduction, TableMaker
from evaluation.records import Condition, DatasetInfo, Settings
from evaluation.results import Results
from evaluation.run.environment import describe_environment
from evaluation.run.manifest import describe_dataset
from evaluation.run.store import RunStore
from evaluation.session import execute, prepare
from evaluation.statistics.recordings import MAX_RATE_DEVIATION
from qincodec.codec import load
from qincodec.core.console import Progress
from qincodec.core.errors import UserError

RUN = "run"
CURVES = "fig4"
#: Values of ``--skip``.
PARTS = (content.DAC, content.ENCODEC, *content.ROLES, OPENL3, CURVES)
_METRICS = "si_sdr,ms_mel,logmel"


@dataclass(frozen=True)
class PaperRequest:
    """The request of a user.

    Attributes:
        data: as for `evaluation.datasets.load_dataset`; None for the demo.
        training: folders that `qincodec train` wrote.
        models: texts ``ROLE=PATH``.
        listening: folder that `mushra analyze` wrote.
        weights: texts ``NAME=PATH`` for dac, encodec, or a name of `evaluate weights`.
        skip: parts (`PARTS`) to leave out.
        limit: number of recordings to draw; None for all.
    """

    data: str | None = None
    training: Sequence[Path] = ()
    models: Sequence[str] = ()
    listening: Path | None = None
    weights: Sequence[str] = ()
    skip: Sequence[str] = ()
    device: str = "cpu"
    limit: int | None = None
    seed: int = 0
    batch_size: int = 8
    workers: int | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)


def reproduce(request: PaperRequest, out: Path, progress: Progress = lambda *_: None) -> Reproduction:
    """Compute everything that can be computed here; the evaluation continues the run in ``out / RUN``.

    Raises:
        UserError: a part of the request cannot be done. Missing weights and adapters are not errors: their
            rows have the reason.
    """
    if unknown := [part for part in request.skip if part not in PARTS]:
        raise UserError(
            f"--skip '{unknown[0]}' is not a part of the paper's tables; choose from {', '.join(PARTS)}"
        )
    listening = None if request.listening is None else read_listening(request.listening)
    models, reasons = find_models(request.training, parse_models(request.models), request.skip)
    codecs, baseline_reasons = _baselines(request, progress)
    reasons |= baseline_reasons
    codecs |= {role: f"{entries[0].label}=qincodec:{entries[0].weights}" for role, entries in models.items()}
    curves = {} if CURVES in request.skip else _curve_models(models)
    session = _Session(request, out / RUN, progress)
    labels = {role: entries[0].label for role, entries in models.items()} | {
        key: key for key in (content.DAC, content.ENCODEC) if key in codecs
    }
    rates_off = session.run(codecs, labels, list(curves.values()))
    results = session.results
    errors = {} if results is None else _latent_errors(results, models, out / RUN, request.device, progress)
    maker = TableMaker(
        results, labels, models, curves, reasons, rates_off, errors, session.unavailable(request.skip)
    )
    tables = [*(maker.table(name, kbps) for name, kbps in content.TABLE_RATES.items()), maker.ablation()]
    curve_reason = f"left out with --skip {CURVES}" if CURVES in request.skip else "no model of QINCODEC"
    figures = [
        listening_figure(listening),
        maker.codebooks(),
        maker.curves(session.curve_reasons, curve_reason),
    ]
    environment = describe_environment(request.device, 1)
    del environment["workers"]  # it may differ between runs
    return Reproduction(
        session.dataset,
        _data_note(request, session.dataset),
        _is_papers(request),
        [model for entries in models.values() for model in entries],
        tables,
        figures,
        maker.notes(),
        environment,
        maker.n_failed,
    )


def _baselines(request: PaperRequest, progress: Progress) -> tuple[dict[str, str], dict[str, str]]:
    """(codec -> its text for ``--codecs``, codec -> why it cannot run) for DAC and EnCodec.

    Missing weights are downloaded, unless downloads are off.
    """
    own: dict[str, str] = {}
    for text in request.weights:
        name, _, path = text.partition("=")
        if not path:
            raise UserError(f"--weights takes NAME=PATH, for example dac-16kbps=weights.pth; got '{text}'")
        if name in (content.DAC, content.ENCODEC):
            own[name] = path
        else:
            weights.use(name, Path(path))
    codecs, reasons = {}, {}
    for name in (content.DAC, content.ENCODEC):
        reason: str | None = f"left out with --skip {name}"
        if name not in request.skip:
            reason = _fetch(name, own.get(name), progress) or unavailable(name, own.get(name))
            if reason and name in own:
                raise UserError(f"--weights {name}={own[name]}: {reason}")
        if reason:
            reasons[name] = reason
        else:
            codecs[name] = f"{name}:{own[name]}" if name in own else name
    return codecs, reasons


def _fetch(codec: str, path: str | None, progress: Progress) -> str | None:
    """Download the missing weights of a codec; return the reason if that is not possible."""
    if weights.is_offline():
        return None
    try:
        for name in missing_weights(codec, path):
            weights.obtain(name, progress)
    except UserError as error:
        return str(error)
    return None


def _curve_models(models: Mapping[str, list[Model]]) -> dict[int, Model]:
    """D -> its model in Fig. 4, in ascending order."""
    found: dict[int, Model] = {}
    for role in content.BEST_FIRST:
        for model in models.get(role, []):
            found.setdefault(model.latent_dim, model)
    return dict(sorted(found.items()))


@dataclass
class _Session:
    """The evaluation behind all tables and figures.

    Attributes:
        results: results of all codecs; None if none could run.
        dataset: data set of the run; set by `run`.
        curve_reasons: (label, kbps) -> why a point of Fig. 4 is missing.
    """

    request: PaperRequest
    folder: Path
    progress: Progress
    results: Results | None = None
    dataset: DatasetInfo = field(init=False)
    curve_reasons: dict[tuple[str, float], str] = field(default_factory=dict)
    _unavailable: dict[str, str] = field(default_factory=dict)

    def run(
        self, codecs: Mapping[str, str], labels: Mapping[str, str], curves: Sequence[Model]
    ) -> dict[tuple[str, float], str]:
        """Evaluate; return (key, kbps) -> why a codec has no such rate."""
        if not codecs:
            self._describe_data()
            return {}
        request = self.request
        metrics = _METRICS if OPENL3 in request.skip else f"{_METRICS},{OPENL3}"
        asked = Request(
            data=request.data,
            codecs=list(codecs.values()),
            kbps=list(content.TABLE_RATES.values()),
            metrics=metrics,
            device=request.device,
            batch_size=request.batch_size,
            workers=request.workers,
            settings=Settings(chunk_s=content.EXCERPT_S, limit=request.limit, seed=request.seed),
            dataset_options=request.dataset_options,
        )
        prepared = prepare(parse_request(asked), self.progress)
        self._unavailable = prepared.unavailable
        off: dict[tuple[str, float], str] = {}
        wanted = []
        keys = {label: key for key, label in labels.items()}
        for entry in prepared.conditions:
            key, kbps = keys[entry.condition.codec], entry.condition.kbps
            assert kbps is not None, "none of these is a control"
            if not content.is_wanted(key, kbps):
                continue
            reason = _rate_off(entry.condition)
            if reason:
                off[key, kbps] = reason
            else:
                wanted.append(entry)
        points = [point for model in curves for point in self._points(asked, model)]
        tables, curve_points = replace(prepared, conditions=wanted), replace(prepared, conditions=points)
        for part in (tables, replace(curve_points, embeddings=[])):
            if part.conditions:
                self.results, _ = execute(part, self.folder, progress=self.progress)
        if self.results is None:
            self._describe_data()
        else:
            self.dataset = self.results.dataset
        return off

    def _points(self, asked: Request, model: Model) -> list[PreparedCondition]:
        """Conditions of Fig. 4."""
        codec = f"{model.label}=qincodec:{model.weights}"
        curve = replace(asked, codecs=[codec], kbps=content.CURVE_RATES)
        points = []
        for entry in prepare_conditions(parse_request(curve))[0]:
            reason = _rate_off(entry.condition)
            if reason and entry.condition.kbps is not None:
                self.curve_reasons[model.label, entry.condition.kbps] = reason
            else:
                points.append(entry)
        return points

    def _describe_data(self) -> None:
        request = self.request
        data = load_dataset(
            request.data,
            chunk_s=content.EXCERPT_S,
            limit=request.limit,
            seed=request.seed,
            progress=self.progress,
            **request.dataset_options,
        )
        self.dataset = describe_dataset(data)

    def unavailable(self, skip: Sequence[str]) -> dict[str, str]:
        """Embedding -> why it could not be computed."""
        skipped = {OPENL3: f"left out with --skip {OPENL3}"} if OPENL3 in skip else {}
        return self._unavailable | skipped


def _rate_off(condition: Condition) -> str:
    """Why a condition does not meet the asked rate; "" if it does."""
    if condition.kbps is None or condition.nominal is None:
        return ""
    if abs(condition.nominal / condition.kbps - 1) <= MAX_RATE_DEVIATION:
        return ""
    return f"its nearest rate to {condition.kbps:g} kbps is {condition.nominal:.2f} kbps"


def _latent_errors(
    results: Results, models: Mapping[str, list[Model]], folder: Path, device: str, progress: Progress
) -> dict[str, LatentError]:
    """Role -> error, for the roles of Table III that ran."""
    found = {}
    with RunStore(folder) as store:
        for row in content.ABLATION:
            for condition in results.conditions:
                if row.key in models and (condition.codec, condition.kbps) == (
                    models[row.key][0].label,
                    content.ABLATION_RATE,
                ):
                    what = f"latents of {row.label}"
                    found[row.key] = latent_error(
                        store,
                        condition,
                        load(models[row.key][0].weights, device=device),
                        lambda done, total, what=what: progress(what, done, total),  # type: ignore[misc]
                    )
    return found


def _is_papers(request: PaperRequest) -> bool:
    return (request.data or "").startswith("audiocaps:")


def _data_note(request: PaperRequest, data: DatasetInfo) -> str:
    count = f"{data.n_clips} clips of {data.n_recordings} recordings"
    if not _is_papers(request):
        return (
            f"not the paper's data: {data.name}, {count}; the paper's values are for {content.TEST_SET}, so"
            " differences to them would say nothing about a codec and are not shown"
        )
    whole = data.n_clips == content.TEST_SET_CLIPS
    text = f"the paper's data: {content.TEST_SET}, {count}"
    length = f"{content.EXCERPT_S:g} s"
    text += "" if whole else f", a part of its {content.TEST_SET_CLIPS} clips"
    return f"{text}; the first {length} of each (the paper does not say which {length})"
