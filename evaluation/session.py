"""One evaluation from start to end: plan, open the run, run, load the results."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from baselines import weights
from baselines.registry import CODECS
from evaluation.datasets import load_dataset
from evaluation.datasets.base import Clip, Dataset
from evaluation.embeddings.base import Embedding
from evaluation.engine.conditions import (
    Planned,
    choose_metrics,
    parse_codecs,
    parse_conditions,
    parse_kbps,
    parse_weights,
    plan_conditions,
)
from evaluation.engine.distributed import Ranks
from evaluation.engine.embedder import Embedder, load_embeddings
from evaluation.engine.noise_floor import noise_floor
from evaluation.engine.runner import Runner, Settings
from evaluation.engine.scoring import describe
from evaluation.loading import load_results
from evaluation.metrics import load_metrics
from evaluation.metrics.base import Metric, describe_metric
from evaluation.metrics.embedding import describe_embedding, embedding_metrics
from evaluation.records import checked_run
from evaluation.results import Results
from evaluation.run.environment import describe_environment
from evaluation.run.manifest import describe_dataset, differences, unite
from evaluation.run.store import RunStore, row_key
from qincodec.codec import check_device
from qincodec.core.console import Progress
from qincodec.core.errors import Unavailable, UserError
from qincodec.core.files import StoreError

#: Names of metrics, and of embeddings, each of which stands for its four.
DEFAULT_METRICS = "si_sdr,ms_mel,logmel,openl3"


@dataclass(frozen=True)
class Request:
    """What was asked for, as typed; see `evaluate` for the meaning of each."""

    data: str | None = None
    codecs: Sequence[str] = ("qincodec,opus,mp3",)
    kbps: Sequence[float] | str = "8,16"
    conditions: Sequence[str] = ()
    metrics: Sequence[str] | str = DEFAULT_METRICS
    weights: Sequence[str] | Mapping[str, str] = ()
    skip_unavailable: bool = False
    device: str = "cpu"
    batch_size: int = 8
    workers: int | None = None
    save_audio: bool = False
    settings: Settings = field(default_factory=Settings)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Plan:
    """What will run: checked, loaded, nothing written yet."""

    request: Request
    dataset: Dataset
    conditions: list[Planned]
    metrics: list[Metric]
    embeddings: list[Embedding]
    unavailable: dict[str, str]
    #: Row label of a codec that was left out -> why.
    skipped: dict[str, str]
    workers: int

    @property
    def floor(self) -> list[Planned]:
        return noise_floor() if self.embeddings else []

    def runner(self, store: RunStore, clips: Sequence[Clip], **options: Any) -> Runner:
        settings = self.request.settings
        return Runner(
            store,
            clips,
            self.conditions,
            self.metrics,
            settings,
            embedders=[Embedder(store, embedding, asdict(settings)) for embedding in self.embeddings],
            floor=self.floor,
            batch_size=self.request.batch_size,
            workers=self.workers,
            device=self.request.device,
            save_audio=self.request.save_audio,
            **options,
        )

    def default_folder(self) -> Path:
        """``runs/<data>-<hash>``: the same request finds its own run again and goes on with it."""
        content = row_key(
            settings=asdict(self.request.settings),
            data=self.dataset.hash,
            conditions=[asdict(planned.condition) for planned in self.conditions],
            metrics=[[metric.name, metric.version] for metric in self.metrics],
            # By name: weights that arrive later go on with the same folder.
            embeddings=sorted([*(e.name for e in self.embeddings), *self.unavailable]),
        )
        return Path("runs") / f"{self.dataset.name}-{content[:8]}"


def make_plan(
    request: Request,
    progress: Progress = lambda *_: None,
    ranks: Ranks | None = None,
    failed: str | None = None,
) -> Plan:
    """Check the whole request, load codecs and data. Raises UserError before any work is done.

    Args:
        failed: why a download that was tried has failed; it is not advised again then.
    """
    check_numbers(request)
    given = request.weights if isinstance(request.weights, Mapping) else parse_weights(request.weights)
    specs = parse_codecs(request.codecs, use_files(given, request.codecs))
    rendered = parse_conditions(request.conditions)
    kbps = parse_kbps(request.kbps)
    metric_names, embedding_names = choose_metrics(request.metrics)
    check_device(request.device)
    conditions, skipped = plan_conditions(
        specs,
        rendered,
        kbps,
        sample_rate=request.settings.sample_rate,
        channels=request.settings.channels,
        device=request.device,
        skip_unavailable=request.skip_unavailable,
        failed=failed,
    )
    settings = request.settings
    ranks = ranks or Ranks()
    embeddings, missing = load_embeddings(embedding_names, request.device, ranks)
    metrics, no_metrics = load_metrics(metric_names)
    for metric in metrics:
        describe_metric(metric)  # refuses what a run folder cannot hold
    for embedding in embeddings:
        describe_embedding(embedding)
    missing = no_metrics | missing
    if not metrics and not embeddings:
        raise Unavailable(f"no metric can be computed here: {'; '.join(missing.values())}")
    dataset = ranks.once(
        lambda: load_dataset(
            request.data,
            chunk_s=settings.chunk_s,
            chunks=settings.chunks,
            limit=settings.limit,
            seed=settings.seed,
            sample_rate=settings.sample_rate,
            progress=progress,
            **request.dataset_options,
        )
    )
    files = ranks.once(lambda: [_find_files(planned, dataset.clips) for planned in conditions])
    conditions = [replace(planned, files=found) for planned, found in zip(conditions, files, strict=True)]
    workers = request.workers or usable_cores()
    plan = Plan(request, dataset, conditions, metrics, embeddings, missing, skipped, workers)
    _describe_run(plan)
    return plan


def use_files(given: Mapping[str, str], codecs: Sequence[str] | str) -> dict[str, str]:
    """Take what names a pretrained file out of ``--weights``; the rest are codecs' own.

    Raises:
        UserError: a file of a codec that is not asked for.
    """
    asked = {spec.codec for spec in parse_codecs(codecs, {})}
    own = dict(given)
    for name in [name for name in own if name in weights.FILES]:
        user = weights.FILES[name].used_by
        if user in CODECS and user not in asked:
            raise UserError(
                f"--weights {name}=... is for codec '{user}', which is not among --codecs; add it"
            )
        weights.use(name, Path(own[name]))
        if name not in asked:
            del own[name]
    return own


def usable_cores() -> int:
    """CPU cores for this process: those it may run on, shared among torchrun's ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def execute(
    plan: Plan,
    out: Path | None = None,
    *,
    command: str | None = None,
    ranks: Ranks | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Results, Path]:
    """Run a plan in folder ``out``, going on with what is there, and load the results.

    Raises:
        UserError: the folder holds a run of another configuration, is in use, or cannot be written.
    """
    ranks = ranks or Ranks()
    folder = out or plan.default_folder()
    first: RunStore | None = None

    def open_first() -> None:
        nonlocal first
        first = RunStore(folder)
        try:
            _prepare(first, plan, command)
        except BaseException:
            first.close()
            raise

    ranks.once(open_first)
    with first or RunStore(folder, rank=ranks.rank) as store:
        done = total = 0

        def on_step(count: int) -> None:
            nonlocal done
            done += count
            progress("coding and scoring", done, total)

        def on_more(count: int) -> None:
            nonlocal total
            total += count

        runner = plan.runner(store, plan.dataset.clips, ranks=ranks, on_step=on_step, on_more=on_more)
        total = runner.steps()
        try:
            runner.run()
        except StoreError as error:
            raise StoreError(f"{error}; what was scored so far is kept") from error
        return load_results(store, progress) if ranks.rank == 0 else load_results(store), folder


def evaluate(
    data: str | Path | None = None,
    codecs: str | Sequence[str] = "qincodec,opus,mp3",
    kbps: str | Sequence[float] = "8,16",
    *,
    out: str | Path | None = None,
    conditions: Mapping[str, str | Path] | Sequence[str] = (),
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    weights: Mapping[str, str] | None = None,
    sample_rate: int = 44100,
    channels: int = 1,
    align: bool = True,
    chunk_s: float = 5.0,
    chunks: Literal["first", "all"] = "first",
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 8,
    workers: int | None = None,
    save_audio: bool = False,
    skip_unavailable: bool = False,
    progress: Progress | None = None,
    **dataset_options: Any,
) -> Results:
    """Evaluate codecs on audio; the command ``evaluate`` from Python.

    Args:
        data: folder, glob, file, JSON-lines manifest, ``audiocaps:FOLDER``; None for the embedded demo.
        codecs: ``"opus,mine=qincodec:PATH"``.
        kbps: asked rates in kbit/s, total over channels; each codec gives its nearest operating point.
        out: run folder; an existing run of the same configuration is continued. None for ``runs/...``.
        conditions: ``{"NAME@KBPS": DIR}`` of files decoded elsewhere, or ``["NAME@KBPS=DIR"]``.
        metrics: names of metrics, and of embeddings, each of which stands for its four metrics. What cannot
            be computed here is left out, with the reason in `Results.unavailable`.
        weights: codec name -> path of its weights; or a name of `evaluate weights`, as "openl3".
        sample_rate: of the evaluation, Hz.
        channels: of the evaluation.
        align: take one integer delay per condition out before scoring; gain is never applied.
        chunk_s: longest excerpt of a recording, seconds.
        chunks: "first" or "all" excerpts of a recording.
        limit: draw that many recordings.
        seed: of the draw and of the bootstrap.
        device: of codecs and metrics, "cpu" or "cuda".
        batch_size: clips at once.
        workers: threads; None for one per usable core.
        save_audio: keep decoded audio as float32 WAV in the run folder.
        skip_unavailable: evaluate the rest where a codec cannot run here.
        progress: called with (what, done, total).
        dataset_options: further options of `evaluation.datasets.load_dataset`.

    Returns:
        `Results`: data frames ``clips`` and ``summary`` and what they were made with.

    Raises:
        UserError: something in the request cannot be done; nothing was written unless scoring had begun.
    """
    if isinstance(conditions, Mapping):
        conditions = [f"{name}={folder}" for name, folder in conditions.items()]
    request = Request(
        data=None if data is None else str(data),
        codecs=[codecs] if isinstance(codecs, str) else codecs,
        kbps=kbps,
        conditions=conditions,
        metrics=metrics,
        weights=weights or {},
        skip_unavailable=skip_unavailable,
        device=device,
        batch_size=batch_size,
        workers=workers,
        save_audio=save_audio,
        settings=Settings(sample_rate, channels, align, chunk_s, chunks, limit, seed),
        dataset_options=dataset_options,
    )
    report = progress or (lambda *_: None)
    plan = make_plan(request, report)
    results, folder = execute(plan, None if out is None else Path(out), progress=report)
    from evaluation.report import write_all

    write_all(results, folder)
    return results


@dataclass(frozen=True)
class Estimate:
    """What a run would take, extrapolated from a few of its clips."""

    n_clips: int
    n_conditions: int
    sample_clips: int
    time_s: float
    disk_bytes: int


def estimate(plan: Plan) -> Estimate:
    """Code and score one batch of typical clips in a temporary folder and extrapolate (``--dry-run``)."""
    clips = sorted((c for c in plan.dataset.clips if c.error is None), key=lambda c: (c.duration_s, c.id))
    if not clips:
        raise UserError("no readable clip to estimate from; check the data")
    count = min(len(clips), plan.request.batch_size)
    start = (len(clips) - count) // 2
    sample = clips[start : start + count]
    with tempfile.TemporaryDirectory(prefix="evaluate-dry-run-") as temporary:
        with RunStore(Path(temporary) / "run") as store:
            began = time.perf_counter()
            plan.runner(store, sample).run()
            seconds = time.perf_counter() - began
        sizes = sum(path.stat().st_size for path in Path(temporary).rglob("*") if path.is_file())
    share = sum(clip.duration_s for clip in clips) / sum(clip.duration_s for clip in sample)
    batches = -(-len(clips) // plan.request.batch_size)
    parallel = min(plan.workers, batches)
    return Estimate(len(clips), len(plan.conditions), count, seconds * share / parallel, int(sizes * share))


def _find_files(planned: Planned, clips: Sequence[Clip]) -> dict[str, str]:
    """Fingerprint of the decoded file of every clip; why there is none stands in its place."""
    if planned.rendered is None:
        return {}
    files = {}
    for clip in clips:
        try:
            files[clip.id] = planned.rendered.fingerprint(planned.rendered.find(clip.id, clip.path.name))
        except UserError as error:
            files[clip.id] = f"missing: {describe(error)}"
    if clips and all(entry.startswith("missing") for entry in files.values()):
        raise UserError(
            f"condition '{planned.condition.codec}': no file matches any of the {len(clips)} clips; "
            f"{files[clips[0].id].removeprefix('missing: ')}"
        )
    return files


def _prepare(store: RunStore, plan: Plan, command: str | None) -> None:
    """Check the folder against the plan and write what describes the run."""
    run = _describe_run(plan, command, store)
    files = {
        f"{planned.condition.codec}@{planned.rate_label}": dict(planned.files)
        for planned in plan.conditions
        if planned.rendered is not None
    }
    store.write_clips(plan.dataset.clips)
    store.write_files(store.read_files() | files)
    store.write_environment(describe_environment(plan.request.device, plan.workers))
    store.write_run(run)


def _describe_run(plan: Plan, command: str | None = None, store: RunStore | None = None) -> dict[str, Any]:
    """run.json; in a store with this request's conditions and metrics added to those of earlier ones.

    Raises:
        UserError: a run folder cannot hold the request; it would be refused when it is read again.
    """
    infos = [describe_embedding(embedding) for embedding in plan.embeddings]
    metrics = [describe_metric(metric) for metric in plan.metrics]
    metrics += [metric for info in infos for metric in embedding_metrics(info)]
    new: dict[str, Any] = {
        "settings": asdict(plan.request.settings),
        "dataset": describe_dataset(plan.dataset),
        "conditions": [asdict(planned.condition) for planned in plan.conditions],
        "floor": [asdict(planned.condition) for planned in plan.floor],
        "metrics": [asdict(metric) for metric in metrics],
        "embeddings": [asdict(info) for info in infos],
        "unavailable": plan.unavailable,
        "skipped": plan.skipped,
        "commands": [command] if command else [],
    }
    old = None if store is None else store.read_run()
    if store is not None and old is not None:
        _refuse_other_configuration(store.folder, old, new)
        new = unite(old, new)
    try:
        checked_run(json.loads(json.dumps(new)))
    except ValueError as error:
        raise UserError(
            f"a run folder cannot hold this request: {error}; rename or correct that part, or leave it out"
        ) from error
    return new


def _refuse_other_configuration(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    def refuse(what: str, had: object, got: object) -> None:
        raise UserError(
            f"{folder} holds a run of another configuration: {what} was {had}, now {got}; "
            "choose another --out, or ask for the same to go on with it"
        )

    for difference in differences(old, new):
        refuse(*difference)
    if old["dataset"]["hash"] != new["dataset"]["hash"]:
        had, got = ({k: run["dataset"][k] for k in ("name", "n_clips", "hash")} for run in (old, new))
        refuse("the data", *("{name} ({n_clips} clips, {hash})".format(**d) for d in (had, got)))


def check_numbers(request: Request) -> None:
    settings = request.settings
    checks: list[tuple[str, bool, object, str]] = [
        ("--sample-rate", 8000 <= settings.sample_rate <= 384000, settings.sample_rate, "8000 to 384000 Hz"),
        ("--channels", 1 <= settings.channels <= 2, settings.channels, "1 or 2"),
        ("--chunk", 0.1 <= settings.chunk_s <= 3600, settings.chunk_s, "0.1 to 3600 seconds"),
        ("--chunks", settings.chunks in ("first", "all"), settings.chunks, "first or all"),
        ("--limit", settings.limit is None or settings.limit >= 1, settings.limit, "1 or more"),
        ("--seed", settings.seed >= 0, settings.seed, "0 or more"),
        ("--batch-size", request.batch_size >= 1, request.batch_size, "1 or more"),
        ("--workers", request.workers is None or request.workers >= 1, request.workers, "1 or more"),
    ]
    for option, good, value, allowed in checks:
        if not good:
            raise UserError(f"{option} is {value}; allowed: {allowed}")


def command_line() -> str:
    """The command as typed, for the manifest."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
