"""What is done on a cluster about work that ends workers. Ray is a stand-in here: no process starts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from known import RATE, LayersCodec, StepCodec, register_codecs, tone_and_noise
from nominal import evaluate
from pages import code
from standin_ray import Death, StandInRay

import evaluation
from baselines.codec import Encoded, Rate
from baselines.registry import CODECS
from evaluation.embeddings import EMBEDDINGS
from evaluation.engine import cluster
from evaluation.engine.worker import Setup, SizeOrder, Tree, Worker
from evaluation.metrics import METRICS
from evaluation.results import Results
from qincodec.core.errors import UserError
from qincodec.quantizers import QUANTIZERS


class DeadlyCodec(StepCodec):
    """Ends its worker at 8 kbps on clips of these peaks."""

    name = "deadly"
    peaks: tuple[float, ...] = tuple(n / 10 for n in range(1, 9))

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        if rate.kbps == 8 and round(float(audio.abs().max()), 2) in self.peaks:
            raise Death
        return super().encode(audio, rate)


class DeadlyLayers(LayersCodec):
    """Ends its worker at its highest rate."""

    name = "deadly-layers"

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        if rate.settings["num_codebooks"] == 8:
            raise Death
        return super().encode_clip(audio, rate)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandInRay:
    """One core."""
    register_codecs(monkeypatch, StepCodec, DeadlyCodec, LayersCodec, DeadlyLayers)
    found = StandInRay(1)
    monkeypatch.setattr(cluster, "_import_ray", lambda: found)
    monkeypatch.setattr(cluster, "LOOK_S", 0.0)
    monkeypatch.setenv("QINCODEC_OFFLINE", "1")  # workers set it
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])
    return found


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight, each louder than the one before it."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(8):
        sound = tone_and_noise(number, 0.3)
        sound *= (number + 1) / 10 / abs(sound).max()
        soundfile.write(folder / f"{number}.wav", sound, RATE, subtype="FLOAT")
    return folder


def coded(clips: Path, out: Path, **options: Any) -> Results:
    """At two rates, of which one is deadly, and a codec that works."""
    wanted: dict[str, Any] = {"metrics": "si_sdr", "batch_size": 2, "cluster": "local", "out": out}
    return evaluate(clips, "deadly,steps", [4, 8], **{**wanted, **options})


def notes_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that clusters say from now on."""
    told: list[str] = []
    init = cluster.Cluster.__init__
    monkeypatch.setattr(cluster.Cluster, "__init__", lambda self, *given: init(self, *given[:3], told.append))
    return told


def without_times(results: Results) -> pd.DataFrame:
    return results.clips.drop(columns=["encode_s", "decode_s"])


def test_a_condition_that_always_ends_its_worker_is_given_up(
    ray: StandInRay, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two of the first clips and two of the last; all else has its scores, and a run that goes on tries
    again."""
    told = notes_of(monkeypatch)
    found = coded(clips, tmp_path / "run")
    failed = found.clips[found.clips["error"].notna()]
    assert set(zip(failed["codec"], failed["kbps"], strict=True)) == {("deadly", 8.0)}
    assert len(failed) == 8 and len(found.clips) == 4 * 8
    reasons = failed["error"].value_counts()
    (given_up,) = (reason for reason in reasons.index if reason.startswith("given up: "))
    assert set(failed.loc[failed["error"] != given_up, "clip"]) == {"0", "1", "6", "7"}
    # A batch of two clips: whole, of that condition alone, and each clip; of the last batch not whole.
    assert ray.deaths == 1 + 2 * (3 + 2 * 3)
    assert "deadly@8 ended 3 workers or more on each of 4 clips (0, 1, 6, 7)" in given_up
    assert told[-1] == given_up and len(told) == len(set(told)) == 1 + 1 + 2 + 1 + 2 + 1
    assert "4 conditions (deadly@4, deadly@8, steps@4, steps@8), 2 clips (0, 1); its work is" in told[0]
    assert [line.partition(" with ")[2] for line in told[1:4]] == [
        f"condition deadly@8, {what}; its work is done again"
        for what in ("2 clips (0, 1)", "clip 0", "clip 1")
    ]
    monkeypatch.setattr(DeadlyCodec, "peaks", ())
    again = coded(clips, tmp_path / "run")
    assert again.clips["error"].isna().all()
    whole = coded(clips, tmp_path / "whole", cluster=None)
    pd.testing.assert_frame_equal(without_times(again), without_times(whole))


def test_clips_that_end_workers_in_the_pilot_as_well_are_counted_once(
    ray: StandInRay, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the first clips and the last ones."""
    told = notes_of(monkeypatch)
    for number in (0, 1):
        (tmp_path / f"{number}.wav").symlink_to(clips / f"{number}.wav")
    found = evaluation.evaluate(
        tmp_path, "deadly", [8], metrics="si_sdr", cluster="local", out=tmp_path / "run"
    )
    assert "ended 3 workers or more on each of 2 clips (0, 1): a crash" in told[-1]
    assert len(told) == len(set(told)) and found.clips["error"].notna().all()


def test_clips_that_end_their_workers_fail_alone(
    ray: StandInRay, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many in a row as a condition is put off for; it goes on with the others."""
    ray.cores = 3
    monkeypatch.setattr(cluster, "MAX_ENDS", 1)
    monkeypatch.setattr(DeadlyCodec, "peaks", (0.1, 0.2, 0.5))
    found = coded(clips, tmp_path / "run", batch_size=1)
    failed = found.clips[found.clips["error"].notna()]
    assert sorted(failed["clip"]) == ["0", "1", "4"]
    assert failed["error"].str.contains("ended one after the other while they worked on this clip").all()


def test_a_rate_that_ends_workers_takes_no_lower_one_with_it(
    ray: StandInRay, clips: Path, tmp_path: Path
) -> None:
    """Lower rates of such a codec are cut out of the highest one; of one that is given up, they are not."""
    found = evaluate(
        clips, "deadly-layers", [220.5, 264.6, 352.8], metrics="si_sdr", cluster="local", out=tmp_path / "run"
    )
    failed = found.clips[found.clips["error"].notna()]
    assert set(failed["kbps"]) == {352.8} and len(failed) == 8


def test_the_pilot_is_encoded_by_the_workers(
    ray: StandInRay, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same points, rates and rows; a highest rate that ends workers does not hide what lies below it."""
    asked: list[str] = []
    work = SizeOrder.work
    monkeypatch.setattr(
        SizeOrder, "work", lambda self, *given: (asked.append(self.label), work(self, *given))[1]
    )
    options: dict[str, Any] = {"metrics": "si_sdr", "batch_size": 8}
    found, whole = (
        evaluation.evaluate(clips, "opus,layers", [24, 250], out=tmp_path / str(c), cluster=c, **options)
        for c in ("local", None)
    )
    assert found.asked == whole.asked and set(asked) == {"opus", "layers"}
    pd.testing.assert_frame_equal(without_times(found), without_times(whole))
    deadly = evaluation.evaluate(
        clips, "deadly-layers", [250], out=tmp_path / "deadly", cluster="local", **options
    )
    assert ray.deaths == cluster.MAX_ENDS and deadly.clips["error"].isna().all()
    row, expected = deadly.summary.iloc[0], whole.summary.set_index(["codec", "kbps"]).loc["layers", 250]
    for name in ("interpolated", "kbps_below", "kbps_above", "si_sdr"):
        assert row[name] == expected[name]


def test_an_edit_of_a_plug_in_does_not_change_a_running_evaluation(
    ray: StandInRay, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a worker that starts afterwards, as in a process that has loaded it."""
    for registry in (CODECS, METRICS, EMBEDDINGS, QUANTIZERS):
        monkeypatch.setattr(registry, "_loaded", {})
    file = tmp_path / "my_codec.py"
    file.write_text(
        "from beside import BITS\n" + code("docs/tutorials/own-codec.md", "MuLaw").replace("127", "BITS")
    )
    (tmp_path / "beside.py").write_text("BITS = 127\n")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")  # puts sys.path back
    options: dict[str, Any] = {"metrics": "si_sdr", "match": "nominal", "batch_size": 8}
    whole = evaluation.evaluate(clips, f"{file}:MuLaw", [64], out=tmp_path / "whole", **options)
    hire = cluster.Cluster._hire

    def edit_first(self: cluster.Cluster) -> None:
        if not ray.actors:
            file.write_text(file.read_text().replace("BITS * level", "9 * level"))
            CODECS._loaded.clear()  # another process
        hire(self)

    monkeypatch.setattr(cluster.Cluster, "_hire", edit_first)
    options |= {"cluster": "local", "out": tmp_path / "run"}
    found = evaluation.evaluate(clips, f"{file}:MuLaw", [64], **options)
    assert "9 * level" in file.read_text() and CODECS._loaded["mulaw"].source.path != file
    pd.testing.assert_frame_equal(without_times(found), without_times(whole))


def test_an_object_whose_code_is_another_at_a_worker_takes_no_part(
    ray: StandInRay, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent of it is the name of its class, which a worker imports, edited by then or its own."""
    file = tmp_path / "some_codec.py"
    file.write_text(code("docs/tutorials/own-codec.md", "MuLaw"))
    monkeypatch.syspath_prepend(tmp_path)
    codec = importlib.import_module("some_codec").MuLaw()
    hire = cluster.Cluster._hire
    monkeypatch.setattr(cluster.Cluster, "_hire", lambda self: file.write_text("# edited") and hire(self))
    with pytest.raises(UserError, match=r"codec mulaw is .* on this host and .* where the run began"):
        evaluate(clips, [codec], [64], metrics="si_sdr", cluster="local", out=tmp_path / "run")


def test_weights_that_change_meanwhile_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"old")
    tree = Tree.of(tmp_path / "weights")
    assert tree.read() == {".": b"old"}
    (tmp_path / "weights").write_bytes(b"new")
    with pytest.raises(UserError, match="weights' has changed since the run began; restore the old file"):
        tree.read()
    (tmp_path / "weights").unlink()
    with pytest.raises(UserError, match="weights' cannot be read: No such file or directory; restore it"):
        tree.read()


def test_a_host_that_cannot_write_files_is_named(
    ray: StandInRay, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the run in a line; what was scored stays, and the same command goes on."""
    monkeypatch.setattr(Worker, "_is_here", lambda self, path, digest: path.stem < "6")
    init = Worker.__init__

    def with_a_file_for_a_folder(self: Worker, setup: Setup) -> None:
        init(self, setup)
        self._folder = tmp_path / "full"
        self._folder.touch()

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "__init__", with_a_file_for_a_folder)
        with pytest.raises(UserError, match=r"host .* cannot write files in '.*full': Not a dir"):
            coded(clips, tmp_path / "run", batch_size=1)
    monkeypatch.setattr(DeadlyCodec, "peaks", ())
    assert coded(clips, tmp_path / "run", batch_size=1).clips["error"].isna().all()
