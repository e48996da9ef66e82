"""One evaluation from start to end: parse the request, prepare, run, load the results, report."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from baselines.codec import Codec
from evaluation.datasets import find_data, load_dataset
from evaluation.datasets.base import Clip, Dataset
from evaluation.datasets.files import Listing
from evaluation.datasets.remote import without_secrets
from evaluation.engine.cluster import Cluster, on_this_host
from evaluation.engine.coding import Coder
from evaluation.engine.conditions import PreparedCondition, prepare_conditions
from evaluation.engine.embedder import load_embeddings
from evaluation.engine.matching import (
    PILOT_FILES,
    Found,
    InThreads,
    Pilot,
    find_points,
    known_points,
    missing_points,
    names_of_points,
    with_points,
)
from evaluation.engine.request import DEFAULT_METRICS, ParsedRequest, Request, parse_request
from evaluation.engine.runner import PreparedRun, Runner
from evaluation.engine.scoring import describe
from evaluation.engine.sizes import Sizes
from evaluation.engine.speeds import Speeds
from evaluation.engine.worker import identities
from evaluation.loading import load_results_as
from evaluation.metrics import load_metrics
from evaluation.metrics.base import describe_metric
from evaluation.metrics.embedding import describe_embedding, embedding_metrics
from evaluation.notebook import Results
from evaluation.records import DecodedFile, Settings
from evaluation.run.environment import describe_environment
from evaluation.run.manifest import RunDescription, describe_dataset
from evaluation.run.store import RunStore, find_run, refuse_strangers
from qincodec.codec import check_device
from qincodec.core.console import Progress
from qincodec.core.errors import Unavailable, UserError
from qincodec.core.files import StoreError

#: Most rounds that add operating points after all clips are coded at those that the pilot found.
MAX_ROUNDS = 4


def prepare(
    request: ParsedRequest,
    progress: Progress = lambda *_: None,
    failed: str | None = None,
    listing: Listing | None = None,
    dataset: Dataset | None = None,
) -> PreparedRun:
    """Load codecs, metrics and data. Raises UserError before any work is done.

    Args:
        failed: why a download failed; messages do not advise it again then.
        listing: result of `find_listing`.
        dataset: result of `check_folder`.
    """
    here = on_this_host(request)
    check_device(here.typed.device)
    parts = len(here.codecs) + len(here.embeddings)

    def on_loaded(done: int) -> None:
        progress("loading models", done, parts)

    conditions, skipped = prepare_conditions(here, failed, on_loaded)
    embeddings, missing = load_embeddings(request.embeddings, here.typed.device)
    on_loaded(parts)
    metrics, no_metrics = load_metrics(request.metrics, request.typed.speech)
    for metric in metrics:
        describe_metric(metric)  # refuses metrics that a run folder cannot store
    for embedding in embeddings:
        describe_embedding(embedding)
    missing = no_metrics | missing
    if not metrics and not embeddings:
        raise Unavailable(f"no metric can be computed here: {'; '.join(missing.values())}")
    listing = listing or find_listing(request)
    dataset = dataset or _load_data(request, listing, progress)
    conditions = [replace(prepared, files=_find_files(prepared, dataset.clips)) for prepared in conditions]
    whole = None if dataset.shard is None else listing
    run = PreparedRun(request, dataset, conditions, metrics, embeddings, missing, skipped, whole=whole)
    _describe_run(run)
    return run


def find_listing(request: ParsedRequest) -> Listing:
    """The names of the data, which a run lists only once at an address."""
    options = {name: value for name, value in request.typed.dataset_options.items() if name != "sample"}
    return find_data(request.typed.data, **options)


def check_folder(
    request: ParsedRequest, folder: Path, listing: Listing, progress: Progress = lambda *_: None
) -> Dataset | None:
    """Refuse a run folder that does not fit the request, if that can be found before any download.

    Returns:
        The data, if the check had to load them.

    Raises:
        UserError: the folder holds a run with other settings or data, or something other than a run.
    """
    refuse_strangers(folder)
    old = find_run(folder)
    if old is None:
        return None
    dataset = _load_data(request, listing, progress)
    new = RunDescription(
        settings=request.typed.settings, dataset=describe_dataset(dataset), conditions=(), metrics=()
    )
    _refuse_other_configuration(folder, old, new)
    return dataset


def execute(
    run: PreparedRun,
    out: Path | None = None,
    *,
    command: str | None = None,
    progress: Progress = lambda *_: None,
    note: Callable[[str], None] = lambda line: None,
    speeds: Callable[[str], None] = lambda text: None,
) -> tuple[Results, Path]:
    """Evaluate in folder ``out``, continuing a run in it, and load the results.

    Args:
        note: called with a line about workers of a cluster that come or go.
        speeds: called with the speeds of the codecs so far, as text.

    Raises:
        UserError: the folder holds a run of another configuration, is in use, or cannot be written.
    """
    folder = out or run.default_folder()
    with RunStore(folder) as store, _cluster(run, note, progress) or nullcontext() as cluster:
        found = None
        if run.settings.match == "measured":
            # It refuses another configuration before anything is measured.
            _describe_run(_at_points(run, known_points(store.find_run())), command, store)
            found = _find_points(run, store, cluster, progress)
        _open(store, run if found is None else _at_points(run, found), command, cluster)
        for more in reversed(range(MAX_ROUNDS + 1)):
            if found is not None:
                run = _at_points(run, found)
            _code(store, run, cluster, progress, speeds, further=more < MAX_ROUNDS)
            found = _further_points(store, run, command) if more else None
            if found is None:
                break
        return load_results_as(Results, store, progress), folder


def _cluster(run: PreparedRun, note: Callable[[str], None], progress: Progress) -> Cluster | None:
    """The cluster that the request names; its workers must load the same codecs, metrics and embeddings."""
    request = run.request
    if request.typed.cluster is None:
        return None
    codecs = {c.condition.codec: c.condition.identity for c in run.conditions if c.codec is not None}
    expected = identities(codecs, run.metrics, run.embeddings)
    progress("joining the cluster", 0, 1)
    cluster = Cluster(request.typed.cluster, request, expected, note)
    progress("joining the cluster", 1, 1)
    return cluster


def _code(
    store: RunStore,
    run: PreparedRun,
    cluster: Cluster | None,
    progress: Progress,
    show_speeds: Callable[[str], None],
    further: bool,
) -> None:
    """Code and score everything that is missing, in two phases with a total each.

    Args:
        further: whether operating points were added after all clips were coded at the first ones.
    """
    phase, done, total = "coding points that rates lack" if further else "coding and scoring", 0, 0
    speeds, lock = Speeds(names_of_points(run.conditions, run.asked)), threading.Lock()
    store.on_append = speeds.add

    def on_step(count: int) -> None:
        nonlocal done
        with lock:  # workers call it
            done += count
            show_speeds(str(speeds))
            progress(phase, done, total)

    def on_more(count: int) -> None:
        nonlocal phase, done, total
        phase, done, total = "scoring at each codec's delay", 0, count

    runner = Runner(store, run, cluster=cluster, on_step=on_step, on_more=on_more)
    total = runner.steps()
    try:
        runner.run()
    except StoreError as error:
        raise StoreError(f"{error}; what was scored so far is kept") from error
    finally:
        show_speeds("")


def _find_points(run: PreparedRun, store: RunStore, cluster: Cluster | None, progress: Progress) -> Found:
    """Find the operating points of a run at measured rates, before anything is coded."""
    sizes = Sizes(Coder(store, run.settings.sample_rate, run.settings.channels))
    measure = InThreads(sizes, run.workers) if cluster is None else cluster.measure
    pilot = Pilot(measure, run.dataset.clips, run.settings)
    if run.dataset.shard is not None:  # all shards must have the same points
        pilot = replace(pilot, clips=_drawn_clips(run, pilot, progress))
    return find_points(run.conditions, store.find_run(), pilot, progress)


def _drawn_clips(run: PreparedRun, pilot: Pilot, progress: Progress) -> list[Clip]:
    """Clips that a pilot of the whole data set of a shard would draw.

    If clips can be drawn by the names of their files, only the necessary files are opened.
    """
    typed = run.request.typed
    sample = PILOT_FILES if typed.settings.chunks == "first" else None
    while True:
        options = {**typed.dataset_options, "shard": None, "sample": sample}
        whole = replace(run.request, typed=replace(typed, dataset_options=options))
        clips = _load_data(whole, run.whole or find_listing(whole), progress).clips
        if sample is None or len(clips) < sample or replace(pilot, clips=clips).is_full:
            return clips
        sample *= 2


def _at_points(run: PreparedRun, found: Found) -> PreparedRun:
    return replace(run, conditions=with_points(run.conditions, found.points), asked=found.asked)


def _further_points(store: RunStore, run: PreparedRun, command: str | None) -> Found | None:
    """All operating points, if the rates measured over all clips need more; run.json has them then."""
    if not run.asked or run.dataset.shard is not None:
        return None
    more = missing_points(run.conditions, run.asked, run.settings, run.dataset.clips, store)
    if not more:
        return None
    tested = [prepared for prepared in run.conditions if not prepared.condition.control]
    coded = [(prepared.condition.codec, prepared.rate) for prepared in tested if prepared.rate is not None]
    found = Found(run.asked, [*coded, *more])
    store.write_run(_describe_run(_at_points(run, found), command, store))
    return found


def evaluate(
    data: str | Path | None = None,
    codecs: str | Codec | Sequence[str | Codec] = "qincodec,opus,mp3",
    kbps: str | float | Sequence[float] = "8,16",
    *,
    out: str | Path | None = None,
    conditions: Mapping[str, str | Path] | Sequence[str] = (),
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    speech: bool = False,
    weights: Mapping[str, str] | None = None,
    sample_rate: int = 44100,
    channels: int = 1,
    align: bool = True,
    chunk_s: float = 5.0,
    chunks: Literal["first", "all"] = "first",
    limit: int | None = None,
    seed: int = 0,
    match: Literal["measured", "nominal"] = "measured",
    device: str = "cpu",
    batch_size: int = 8,
    workers: int | None = None,
    save_audio: bool = False,
    cluster: str | None = None,
    skip_unavailable: bool = False,
    progress: Progress = lambda *_: None,
    **dataset_options: Any,
) -> Results:
    """Evaluate codecs on audio; the command ``evaluate`` from Python.

    Args:
        data: folder, glob, file, JSON-lines manifest, an address of one of these, ``audiocaps:FOLDER``; None
            for the embedded demo.
        codecs: ``"opus,mine=qincodec:PATH,./my_codec.py:MuLaw"``, or objects too: ``[MyCodec(), "opus"]``.
        kbps: asked rates in kbit/s, total over channels: ``"8,16"``, ``[8, 16]`` or ``8``; see ``match``.
        out: run folder; an existing run of the same configuration is continued. None for ``runs/...``.
        conditions: ``{"NAME@KBPS": DIR}`` of files decoded elsewhere, or ``["NAME@KBPS=DIR"]``.
        metrics: names of metrics and of embeddings; an embedding selects its four metrics. Metrics that
            cannot be computed here are left out, with the reason in `Results.unavailable`.
        speech: score all clips with the metrics for speech, not only those of category "speech".
        weights: codec name -> path of its weights; or a name of `evaluate weights`, such as "openl3".
        sample_rate: sample rate of the scoring, Hz.
        channels: 1: clips are mixed to mono; 2: stereo.
        align: remove one integer delay per condition before scoring; gain is never applied.
        chunk_s: longest excerpt of a recording, seconds.
        chunks: "first" or "all" excerpts of a recording.
        limit: number of recordings to draw; None for all.
        seed: seed of the draw, of the pilot and of the bootstrap.
        match: "measured": every row meets its asked rate as measured on these data within 3 %, or is
            interpolated between two operating points; "nominal": each codec uses its nearest nominal
            operating point.
        device: device of codecs and metrics, "cpu" or "cuda".
        batch_size: clips coded and scored at once.
        workers: number of threads, or of workers of the cluster; None for one per usable core, or per core or
            GPU of the cluster.
        save_audio: keep decoded audio as float32 WAV in the run folder.
        cluster: "local", "auto" or HOST:PORT of a Ray cluster whose workers code and score.
        skip_unavailable: leave out codecs that cannot run here.
        progress: called with (what, done, total).
        dataset_options: further options of `evaluation.datasets.load_dataset`.

    Returns:
        `Results`: data frames ``clips`` and ``summary``, and the settings of the run.

    Raises:
        UserError: a part of the request cannot be done; nothing was written unless scoring had begun.

    Examples:
        >>> from evaluation import evaluate
        >>> results = evaluate("demo", "opus", 24, metrics="si_sdr", limit=2, out="run")
        >>> results.summary[["codec", "kbps", "n"]].values.tolist()
        [['opus', 24.0, 2]]
    """
    if isinstance(conditions, Mapping):
        conditions = [f"{name}={folder}" for name, folder in conditions.items()]
    request = Request(
        data=None if data is None else str(data),
        codecs=[codecs] if isinstance(codecs, str | Codec) else codecs,
        kbps=kbps,
        conditions=conditions,
        metrics=metrics,
        speech=speech,
        weights=weights or {},
        skip_unavailable=skip_unavailable,
        device=device,
        batch_size=batch_size,
        workers=workers,
        save_audio=save_audio,
        cluster=cluster,
        settings=Settings(sample_rate, channels, align, chunk_s, chunks, limit, seed, match),
        dataset_options=dataset_options,
    )
    run = prepare(parse_request(request), progress)
    results, folder = execute(run, None if out is None else Path(out), progress=progress)
    from evaluation.report import write_all

    write_all(results, folder)
    return results


def _load_data(request: ParsedRequest, listing: Listing, progress: Progress) -> Dataset:
    typed, settings = request.typed, request.typed.settings
    return load_dataset(
        typed.data,
        chunk_s=settings.chunk_s,
        chunks=settings.chunks,
        limit=settings.limit,
        seed=settings.seed,
        sample_rate=settings.sample_rate,
        listing=listing,
        progress=progress,
        **typed.dataset_options,
    )


def _find_files(prepared: PreparedCondition, clips: Sequence[Clip]) -> dict[str, DecodedFile]:
    """The decoded file of every clip, or why it is missing."""
    if prepared.rendered is None:
        return {}
    files = {}
    for clip in clips:
        try:
            found = prepared.rendered.find(clip.id, clip.path.name)
            files[clip.id] = DecodedFile(prepared.rendered.fingerprint(found))
        except UserError as error:
            files[clip.id] = DecodedFile(missing=describe(error))
    if clips and all(file.fingerprint is None for file in files.values()):
        raise UserError(
            f"condition '{prepared.condition.codec}': no file matches any of the {len(clips)} clips; "
            f"{files[clips[0].id].missing}"
        )
    return files


def _open(store: RunStore, run: PreparedRun, command: str | None, cluster: Cluster | None) -> None:
    """Check that the folder fits the run, and write the run's description."""
    described = _describe_run(run, command, store)
    files = {
        prepared.condition.point: dict(prepared.files)
        for prepared in run.conditions
        if prepared.rendered is not None
    }
    store.write_clips(run.dataset.clips)
    store.write_files(store.read_files() | files)
    environment = describe_environment(run.request.typed.device, run.workers)
    store.write_environment(environment | ({} if cluster is None else {"cluster": cluster.describe()}))
    store.write_run(described)


def _describe_run(
    run: PreparedRun, command: str | None = None, store: RunStore | None = None
) -> RunDescription:
    """Content of run.json; with a store, united with the conditions and metrics of earlier requests.

    Raises:
        UserError: a run folder cannot store the request, because reading it again would fail.
    """
    infos = [describe_embedding(embedding) for embedding in run.embeddings]
    metrics = [describe_metric(metric) for metric in run.metrics]
    metrics += [metric for info in infos for metric in embedding_metrics(info)]
    new = RunDescription(
        settings=run.settings,
        dataset=describe_dataset(run.dataset),
        conditions=tuple(prepared.condition for prepared in run.conditions),
        asked=tuple(run.asked),
        floor=tuple(prepared.condition for prepared in run.floor),
        metrics=tuple(metrics),
        embeddings=tuple(infos),
        unavailable=run.unavailable,
        skipped=run.skipped,
        commands=(command,) if command else (),
    )
    old = None if store is None else store.find_run()
    if store is not None and old is not None:
        _refuse_other_configuration(store.folder, old, new)
        new = old.united(new)
    try:
        RunDescription.of_json(json.loads(json.dumps(new.to_json())))
    except ValueError as error:
        raise UserError(
            f"a run folder cannot hold this request: {error}; rename or correct that part, or leave it out"
        ) from error
    return new


def _refuse_other_configuration(folder: Path, old: RunDescription, new: RunDescription) -> None:
    differences = list(old.differences(new))
    if old.dataset.hash != new.dataset.hash:
        had, got = (f"{d.name} ({d.n_clips} clips, {d.hash})" for d in (old.dataset, new.dataset))
        differences.append(("the data", had, got))
    for what, had, got in differences:
        raise UserError(
            f"{folder} holds a run of another configuration: {what} was {had}, now {got}; "
            "choose another --out, or ask for the same configuration to continue it"
        )


def command_line() -> str:
    """The command as typed, for run.json, without passwords and tokens in addresses."""
    script = Path(sys.argv[0])
    module = script.name == "__main__.py"
    arguments = map(without_secrets, sys.argv[1:])
    return shlex.join([*(["python", "-m", script.parent.name] if module else [script.name]), *arguments])
