"""``--cluster``: the same rows and bytes as one process, whatever ends on the way."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

from evaluation.cli.evaluate import main
from evaluation.engine import cluster
from evaluation.engine.evaluator import Evaluator, Work
from evaluation.engine.jobs import BatchJob
from evaluation.engine.ledger import Gathered
from evaluation.engine.request import Request, parse_request
from evaluation.engine.tokens import tokenize
from evaluation.engine.worker import BatchOrder, Lacks, Ordered, Ready, Setup, Tree, Worker, identities
from evaluation.records import Settings
from evaluation.run.store import RunStore
from evaluation.session import execute, prepare
from qincodec.core.errors import UserError

ROOT = Path(__file__).parents[3]

#: A codec out of a file. Its first call waits until two workers are at it; what is too loud kills a worker.
CODEC = """
import os, signal, time
from pathlib import Path
import numpy as np
from baselines.codec import ClipCodec, Encoded, Rate

class Waiting(ClipCodec):
    name, version, sample_rate, channels = {name!r}, "1", 16000, (1,)
    folder, workers, deadly = Path({folder!r}), {workers}, {deadly}

    def rates(self, channels=1):
        return [Rate(8.0), Rate(16.0)]

    def encode_clip(self, audio, rate):
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < self.workers:
            time.sleep(0.01)
        if rate.kbps == 16 and abs(audio).max() > self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        steps = np.round(audio * rate.kbps * 4).astype(np.int8)
        return Encoded(steps.tobytes(), 16000, *audio.shape, side_info={{"scale": rate.kbps * 4}})

    def decode_clip(self, encoded):
        steps = np.frombuffer(encoded.payload, np.int8).reshape(encoded.channels, -1)
        return (steps / encoded.side_info["scale"]).astype(np.float32)
"""


@pytest.fixture
def codec(tmp_path: Path) -> Any:
    """Writes a file with `CODEC`, and says its name as ``--codecs`` takes it."""

    def write(workers: int = 1, deadly: float = 9.0) -> str:
        pids = tmp_path / f"pids-{workers}"
        pids.mkdir()
        file = tmp_path / "waiting.py"
        values = {"name": tmp_path.name, "folder": str(pids), "workers": workers, "deadly": deadly}
        file.write_text(CODEC.format(**values))
        return f"{file}:Waiting"

    return write


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A Ray cluster of two hosts with a core each, in processes of this one."""
    pytest.importorskip("ray")
    cluster._import_ray()
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


def request(data: Path | str, codecs: str, **options: Any) -> Request:
    settings = Settings(chunk_s=1.0, match="nominal", sample_rate=16000)
    return Request(
        data=str(data), codecs=[codecs], kbps="8,16", metrics="si_sdr,logmel", batch_size=2,
        settings=settings, **options,
    )  # fmt: skip


def evaluated(asked: Request, out: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Its rows by key, without times and places."""
    execute(prepare(parse_request(asked)), out, **options)
    return rows(out)


def rows(run: Path) -> dict[str, dict[str, Any]]:
    lines = [line for path in (run / "rows").iterdir() for line in path.read_text().splitlines()]
    found = [json.loads(line) for line in lines]
    keys = [row["key"] for row in found]
    assert len(keys) == len(set(keys))
    away = {"encode_s", "decode_s", "file", "offset"}
    return {row["key"]: {name: row[name] for name in row if name not in away} for row in found}


def encoded(run: Path) -> dict[str, bytes]:
    files = (path for path in (run / "encoded").rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_a_host_that_is_lost_and_none_that_has_the_data(
    clip_folder: Path, tmp_path: Path, nodes: Any, codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process, two threads, and two hosts, one of which is lost while both are at work."""
    name = codec()
    whole = evaluated(request(clip_folder, f"{name},opus", workers=1), tmp_path / "whole")
    threads = evaluated(request(clip_folder, f"{name},opus", workers=2), tmp_path / "threads")
    assert threads == whole

    codec(workers=2)  # another file, but what it encodes is the same
    shutil.copytree(clip_folder, tmp_path / "here" / "clips")
    monkeypatch.chdir(tmp_path / "here")
    notes: list[str] = []
    sent: list[str] = []
    ask = cluster.Cluster._content
    monkeypatch.setattr(
        cluster.Cluster, "_content", lambda self, name: (sent.append(name), ask(self, name))[1]
    )

    def progress(what: str, done: int, total: int) -> None:
        if what == "coding and scoring" and done and len(nodes.worker_nodes) == 1:
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    # A path that leads every process elsewhere.
    asked = request("/proc/self/cwd/clips", f"{name},opus", cluster=nodes.address)
    lost = evaluated(asked, tmp_path / "lost", note=notes.append, progress=progress)
    assert any("its work is done again" in line for line in notes), notes
    assert {Path(path).name for path in sent} >= {"a.wav", "g.wav"}

    def same(rows: dict[str, dict[str, Any]]) -> list[str]:
        """The key of a codec out of a file is of the file's content."""
        return sorted(json.dumps({**row, "key": ""}) for row in rows.values())

    assert same(lost) == same(whole)
    assert encoded(tmp_path / "lost") == encoded(tmp_path / "whole")
    summaries = [(tmp_path / run / "embeddings" / "logmel") for run in ("lost", "whole")]
    assert sum(p.stat().st_size for p in summaries[0].iterdir()) == sum(
        p.stat().st_size for p in summaries[1].iterdir()
    )


@pytest.mark.slow
def test_a_clip_that_kills_its_worker_fails_alone(
    tmp_path: Path, lab: Lab, nodes: Any, codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three clips, so that the other worker does what is left and none has to be waited for."""
    monkeypatch.setattr(cluster, "MAX_ENDS", 1)
    asked = request(lab.recordings, codec(deadly=0.5), cluster=nodes.address)
    asked = replace(asked, kbps="16", metrics="si_sdr", batch_size=1)
    found = evaluated(asked, tmp_path / "run")
    coded = {row["clip"]: row["error"] for row in found.values() if row["kind"] == "coded"}
    assert "ended one after the other" in coded.pop("loud")
    assert coded == {"one": None, "two": None}


@pytest.mark.long
def test_a_clip_that_kills_every_worker_fails_alone(
    tmp_path: Path, lab: Lab, nodes: Any, codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one of two rates, one of three clips: all else has its rows, and the clip says why it has none."""
    monkeypatch.setattr(cluster, "MAX_ENDS", 1)
    asked = request(lab.recordings, codec(deadly=0.5), cluster=nodes.address)
    found = evaluated(asked, tmp_path / "run")
    coded = {(row["clip"], row["rate"]): row["error"] for row in found.values() if row["kind"] == "coded"}
    failed = {key: error for key, error in coded.items() if error is not None}
    assert failed.keys() == {("loud", "16")} and len(coded) == 3 * 3  # two rates, and the noise floor
    assert "ended one after the other" in failed["loud", "16"]


def test_sigterm_ends_a_run_as_ctrl_c_does(clip_folder: Path, nodes: Any) -> None:
    """Ray has a handler of its own, which aborts the process; `nodes` have put one into this one, too."""
    asked = parse_request(request(clip_folder, "pcm16", cluster=nodes.address))
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), cluster.Cluster(nodes.address, asked, {}):
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler  # else it ends the tests
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.long
def test_tokens_are_those_of_one_process(clip_folder: Path, tmp_path: Path, nodes: Any) -> None:
    found = {}
    for name, address in {"one": None, "cluster": nodes.address}.items():
        asked = request(clip_folder, "encodec-24khz:untrained:tiny", cluster=address)
        settings = replace(asked.settings, chunks="all")
        parsed = parse_request(replace(asked, kbps="6", settings=settings))
        assert tokenize(parsed, tmp_path / name).failed == 0
        found[name] = {file.name: file.read_bytes() for file in (tmp_path / name).iterdir() if file.is_file()}
    assert found["one"] == found["cluster"] and len(found["one"]) >= 3


def test_a_worker_asks_for_what_its_host_lacks(clip_folder: Path, tmp_path: Path) -> None:
    """Weights and data that lie elsewhere: it names them, and goes on with what is sent."""
    model = tmp_path / "model"
    shutil.copytree(ROOT / "qincodec" / "pretrained" / "small", model)
    asked = parse_request(request(clip_folder, f"mine=qincodec:{model}"))
    run = prepare(asked)
    expected = identities({"mine": run.conditions[0].condition.identity}, run.metrics, run.embeddings)
    elsewhere = Tree(tmp_path / "away" / "model", Tree.of(model).digests)
    contents = {"mine:": {name: (model / name).read_bytes() for name in elsewhere.digests}}
    worker = Worker(Setup(asked, {"mine:": elsewhere}, [], expected))
    assert worker.prepare({}) == Lacks(("mine:",))
    assert isinstance(worker.prepare(contents), Ready)

    clip = next(clip for clip in run.dataset.clips if clip.id == "a")
    condition = run.conditions[0].condition
    away = replace(clip, path=tmp_path / "away" / "a.wav")

    def fresh() -> BatchOrder:
        return BatchOrder([away], [Ordered(condition, {}, {}, None)], [], Gathered())

    assert worker.do(fresh(), {}) == Lacks((str(away.path),))
    sent = worker.do(fresh(), {str(away.path): {".": clip.path.read_bytes()}})
    here = Gathered()
    Evaluator(here, asked.typed.settings, run.conditions, run.metrics, run.embeddings, "cpu", False).work(
        Work([clip], [(run.conditions[0], None)])
    )
    times = {"encode_s": None, "decode_s": None}
    for rows_of in (sent.new_rows, here.new_rows):
        rows_of.update({k: replace(r, **times) for k, r in rows_of.items() if r.kind == "coded"})
    assert sent.new_rows == here.new_rows and sent.new_encoded == here.new_encoded
    assert sent.new_frames.keys() == here.new_frames.keys()

    # What lies nowhere, and what is something else by now, fails as it does in one process.
    for nowhere, why in (({}, "cannot be read"), ({".": b"other"}, "has changed since the run began")):
        (row,) = worker.do(fresh(), {str(away.path): nowhere}).new_rows.values()
        assert why in row.error and str(away.path) in row.error


def test_files_that_were_decoded_elsewhere_are_sent(clip_folder: Path, tmp_path: Path) -> None:
    """What one process makes of them; one that is missing fails in both."""
    folder = tmp_path / "decoded"
    folder.mkdir()
    shutil.copy(clip_folder / "a.wav", folder)
    rendered = [f"mine@8={folder}"]
    asked = parse_request(replace(request(clip_folder, "pcm16"), conditions=rendered))
    run = prepare(asked)
    condition = next(c for c in run.conditions if c.condition.codec == "mine")
    clips = [clip for clip in run.dataset.clips if clip.id in ("a", "b")]
    identity = {c.condition.codec: c.condition.identity for c in run.conditions if c.codec is not None}
    worker = Worker(Setup(asked, {}, [], identities(identity, run.metrics, run.embeddings)))
    assert isinstance(worker.prepare({}), Ready)
    with RunStore(tmp_path / "run") as store:
        parts = run.conditions, run.metrics, run.embeddings
        here = Evaluator(store, asked.typed.settings, *parts, "cpu", False)
        job = BatchJob(Work(clips, [(condition, None)]), here, store, lambda count: None)
        order = job.order()
        contents = {str(path): {".": path.read_bytes()} for path in order.files}
        assert folder / "a.wav" in order.files and len(contents) == 3
        (tmp_path / "decoded").rename(tmp_path / "away")
        sent = worker.do(order, contents)
        (tmp_path / "away").rename(folder)
        here.work(Work(clips, [(condition, None)]))
        known = {key: store.row(key, type(row)) for key, row in sent.new_rows.items()}
    assert sent.new_rows == known and {row.error is None for row in known.values()} == {True, False}


def test_a_worker_with_another_model_takes_no_part(clip_folder: Path) -> None:
    asked = parse_request(request(clip_folder, "pcm16"))
    worker = Worker(Setup(asked, {}, [], {"codec pcm16": {"name": "pcm16", "version": "0"}}))
    with pytest.raises(UserError, match=r"cannot join: codec pcm16 is .* install the same"):
        worker.prepare({})


def test_results_that_arrive_twice_change_nothing(clip_folder: Path, tmp_path: Path) -> None:
    """A batch that arrives twice, or by halves known already."""
    run = prepare(parse_request(request(clip_folder, "pcm16")))
    made = Gathered()
    typed = run.request.typed
    with RunStore(tmp_path / "run") as store:
        there = Evaluator(made, typed.settings, run.conditions, run.metrics, run.embeddings, "cpu", False)
        there.work(Work(run.dataset.clips[:2], [(run.conditions[0], None)]))
        here = Evaluator(store, typed.settings, run.conditions, run.metrics, run.embeddings, "cpu", False)
        job = BatchJob(
            Work(run.dataset.clips[:2], [(run.conditions[0], None)]), here, store, lambda count: None
        )
        job.take(made.additions())
        before = rows(tmp_path / "run")
        job.take(made.additions())
        assert rows(tmp_path / "run") == before and len(before) == 2 * (1 + 1 + 2 + 2)
        known = job.order().known.known
        assert {row.kind for row in known.rows.values()} == {"coded", "score"}
        assert len(known.encoded) == 2 and len(known.frames) == 4


@pytest.mark.parametrize(
    ("address", "why"),
    [("ray://host:10001", "--cluster is 'ray://host:10001'"), ("127.0.0.1:9", "no Ray cluster answers")],
)
def test_addresses_that_are_not_a_cluster(
    address: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["evaluate", "--codecs", "pcm16", "--metrics", "si_sdr", "--cluster", address]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and why in capsys.readouterr().err


def test_a_dry_run_is_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", "--cluster", "auto", "--dry-run"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "for this machine alone" in capsys.readouterr().err


def test_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["evaluate", "--codecs", "pcm16", "--metrics", "si_sdr", "--cluster", "local"]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "pip install 'qincodec[cluster]'" in capsys.readouterr().err
