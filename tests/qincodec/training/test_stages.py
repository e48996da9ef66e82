"""The three stages, on a tiny codec and seconds of audio."""

import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from attack import Attack

from qincodec import audio
from qincodec.codec import load
from qincodec.core.console import ProgressLine
from qincodec.core.errors import UserError
from qincodec.quantizers.latents import Latents
from qincodec.quantizers.rvq import RVQ
from qincodec.training import checkpoints as checkpoints_module
from qincodec.training.autoencoder import train_autoencoder
from qincodec.training.checkpoints import Checkpoints
from qincodec.training.cli import app as train_app
from qincodec.training.config import load_config, parse_config
from qincodec.training.finetune import finetune
from qincodec.training.loop import launch
from qincodec.training.quantizer import count_codes, extract, fit_quantizer
from qincodec.training.run import TrainingRun

TINY = {
    "autoencoder": "tiny",
    "data": {"crop_s": 0.1, "batch_size": 4, "workers": 0, "held_out": 0.2},
    "discriminators": {"width": 0.03},
    "losses": {"waveform": 1.0},
    "stage1": {"steps": 6, "latent_noise": 0.3, "ema": 0.9},
    "stage2": {"kind": "rvq", "codebook_size": 8, "num_codebooks": 3},
    "stage3": {"steps": 4, "codebooks": [1, 3], "ema": 0.9},
    "run": {"log_every": 1, "validate_every": 3, "save_every": 2, "samples_every": 6}
    | {"validation_clips": 2, "validation_s": 0.3},
}


def config(**changes):
    values = json.loads(json.dumps(TINY))
    for key, value in changes.items():
        part, _, name = key.partition("__")
        values[part][name] = value
    return parse_config(values, "test")


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for number in range(8):
        time_s = np.arange(44_100) / 44_100
        tone = 0.3 * np.sin(2 * np.pi * (200 + 150 * number) * time_s) * np.exp(-2 * time_s)
        noisy = tone + 0.02 * random.standard_normal(len(tone))
        audio.write(folder / f"{number}.wav", noisy[None].astype(np.float32), 44_100)
    return folder


def create(folder, sounds, **changes):
    return TrainingRun.create(folder / "run", config(**changes), sounds)


def losses(folder):
    with (folder / "losses.csv").open() as file:
        return [
            {name: float(value) for name, value in row.items() if name != "seconds" and value}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sounds):
    """A run with all stages done, its summaries, and the model before stage 3."""
    return all_stages(create(tmp_path_factory.mktemp("trained"), sounds))


@pytest.fixture(scope="module")
def mini(tmp_path_factory, sounds):
    """`paper-d32-mini` in two steps a stage, with discriminators from the second step."""
    values = load_config("paper-d32-mini").model_dump(mode="json")
    values["data"], values["run"] = TINY["data"], TINY["run"]
    values["discriminators"]["start_step"] = 1
    values["stage1"]["steps"] = values["stage3"]["steps"] = 2
    values["stage2"]["codebook_size"] = 32
    run = tmp_path_factory.mktemp("mini") / "run"
    return all_stages(TrainingRun.create(run, parse_config(values, "test"), sounds))


def all_stages(run):
    fabric = launch(run.config.run, "cpu")
    return run, [train_autoencoder(run, fabric), fit_quantizer(run), finetune(run, fabric)]


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


@pytest.mark.parametrize("stages", ["trained", pytest.param("mini", marks=pytest.mark.slow)])
def test_all_stages_leave_models_that_code(request, stages):
    run, summaries = request.getfixturevalue(stages)
    kind = run.config.stage2.kind
    assert [made["stage"] for made in summaries] == ["autoencoder", "quantizer", f"fine-tuning on {kind}"]
    assert "discriminator" in losses(run.stage_folder("finetuned", kind))[-1]
    codec = run.model("finetuned", kind)
    assert codec.reconstruct(0.1 * torch.randn(1, 1, 5000), num_codebooks=2).shape == (1, 1, 5000)
    assert codec.trained and codec.finetuned and run.model("quantizer", kind).finetuned is None


def test_encoder_and_quantizer_keep_their_bytes_in_stage_3(run):
    before = run.model("quantizer", "rvq")._state()[1]
    after = run.model("finetuned", "rvq")._state()[1]
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = ("quantizer.", "autoencoder.encoder.", "autoencoder.to_latents.")
    assert not any(name.startswith(frozen) for name in changed)
    assert {name.split(".")[1] for name in changed} == {"decoder", "head"}


def test_code_tables_are_kept_where_they_save_on_other_latents(tmp_path):
    quantizer = RVQ(2, 1, 4)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    quantizer.codebooks.copy_(corners[None])
    shares = {"skewed": [0.7, 0.1, 0.1, 0.1], "even": [0.25] * 4, "other": [0.1, 0.1, 0.1, 0.7]}
    latents = {}
    for name, p in shares.items():
        random = np.random.default_rng(0)
        sound = corners.numpy()[random.choice(4, 4000, p=p)] + random.uniform(-0.1, 0.1, (4000, 2))
        silence = np.full((2000, 2), -1.0)  # one frame again and again
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "shard-00000.npy", np.concatenate([sound, silence]).astype(np.float32))
        latents[name] = Latents(tmp_path / name)
    tables = count_codes(quantizer, latents["skewed"], latents["skewed"])
    assert tables.bits_per_frame(1) == pytest.approx(1.357, abs=0.03)  # of 2
    assert count_codes(quantizer, latents["even"], latents["even"]) is None
    assert count_codes(quantizer, latents["skewed"], latents["other"]) is None


@pytest.mark.slow
def test_a_transform_path_begins_fitted_and_its_analysis_is_frozen_in_stage_3(tmp_path, sounds):
    shape = {"latent_dim": 32, "dim": 32, "intermediate_dim": 64, "num_layers": 1, "transform_path": True}
    values = json.loads(json.dumps(TINY)) | {"autoencoder": shape}
    run = TrainingRun.create(tmp_path / "run", parse_config(values, "test"), sounds)
    fabric = launch(run.config.run, "cpu")
    summary = train_autoencoder(run, fabric)
    # The sounds are tones from 200 to 1250 Hz: the coefficients that suit them hold most of them.
    assert summary["best"]["si_sdr"] > 6
    fit_quantizer(run)
    finetune(run, fabric)
    before = run.model("quantizer", "rvq")._state()[1]
    after = run.model("finetuned", "rvq")._state()[1]
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "head", "transform_synthesis"}


def test_the_encoder_of_stage_2_is_that_of_stage_1(run):
    before, after = run.model("autoencoder")._state()[1], run.model("quantizer", "rvq")._state()[1]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_learning_rate_is_carried_over(run):
    optimizer, steps = run.config.optimizer, run.config.stage1.steps
    rates = [row["lr"] for row in losses(run.stage_folder("finetuned", "rvq"))]
    gamma = math.exp(-optimizer.decay / steps)
    assert rates == pytest.approx([2e-4 * gamma ** (steps + t) for t in range(4)], rel=1e-4)


def test_latents_are_those_of_whole_recordings(run):
    codec = run.model("autoencoder")
    folder = next(run.stage_folder("autoencoder").glob("latents-[0-9a-f]*"))
    found = np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])
    expected = {}
    for index in range(len(run.train)):
        sound, _ = audio.read(run.train.path(index))
        expected[index] = codec.encode_latents(torch.from_numpy(sound)[None])[0, 0].numpy()
    assert len(found) == sum(map(len, expected.values()))
    starts = {tuple(np.round(latents[0], 3)): latents for latents in expected.values()}
    at = 0
    while at < len(found):  # in whatever order
        latents = starts.pop(min(starts, key=lambda key: np.abs(np.subtract(key, found[at])).sum()))
        np.testing.assert_allclose(found[at : at + len(latents)], latents, atol=1e-4)
        at += len(latents)
    assert not starts


@pytest.mark.parametrize("in_memory_s", [60.0, 0.0], ids=["short", "long"])
def test_latents_of_other_speeds_are_those_of_resampled_audio(run, tmp_path, monkeypatch, in_memory_s):
    monkeypatch.setattr("qincodec.training.quantizer._IN_MEMORY_S", in_memory_s)
    codec = run.model("autoencoder")
    with ProgressLine() as progress:
        extract(codec, run.train, tmp_path / "latents", run, "cpu", progress, speeds=(1.0, 0.8))
    found = np.concatenate([np.load(path) for path in sorted((tmp_path / "latents").glob("*.npy"))])
    expected = []
    for index in range(len(run.train)):
        sound, _ = audio.read(run.train.path(index))
        expected += [
            codec.encode_latents(torch.from_numpy(played)[None])[0, 0].numpy()
            for played in (sound, audio.resample(sound, 35_280, 44_100))
        ]
    assert len(found) == sum(map(len, expected))
    for latents in expected:
        begins = np.flatnonzero(np.abs(found - latents[0]).max(1) < 1e-4)
        assert any(np.abs(found[at : at + len(latents)] - latents).max() < 1e-4 for at in begins)


def test_logs_and_samples(run):
    folder = run.stage_folder("autoencoder")
    rows = losses(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"mel", "waveform", "adversarial", "feature_matching", "discriminator", "lr"} <= rows[0].keys()
    weights = run.config.losses
    for row in rows:
        parts = weights.mel * row["mel"] + weights.waveform * row["waveform"]
        parts += weights.adversarial * row["adversarial"] + weights.feature_matching * row["feature_matching"]
        assert row["generator"] == pytest.approx(parts, rel=1e-4)
    samples = folder / "samples" / "step-000000006"
    decoded, rate = audio.read(samples / "0.wav")
    assert (decoded.shape, rate) == ((1, 13_230), 44_100)
    assert (samples / "0.png").stat().st_size > 5000
    assert list((folder / "tensorboard").glob("events*"))


def test_last_checkpoints_and_the_best_are_kept(trained):
    run, summaries = trained
    checkpoints = Checkpoints(run.stage_folder("autoencoder") / "checkpoints", 2)
    assert checkpoints.steps() == [4, 6]
    best = checkpoints.load(checkpoints.best_path)
    assert best["step"] == summaries[0]["best"]["step"]


@pytest.mark.parametrize("stage", [("autoencoder",), ("finetuned", "rvq")])
def test_best_weights_are_the_model(run, stage):
    best = Checkpoints(run.stage_folder(*stage) / "checkpoints", 2)
    state = best.load(best.best_path)
    model = run.model(*stage).autoencoder.state_dict()
    assert all(torch.equal(model[name], state["averaged"][name]) for name in model)
    assert not all(torch.equal(model[name], state["generator"][f"autoencoder.{name}"]) for name in model)


def test_the_average_of_stage_3_follows_the_trained_weights(run):
    """From step to step by 1 - min(ema, (1 + t) / (10 + t)), t counted from 0."""
    kept = Checkpoints(run.stage_folder("finetuned", "rvq") / "checkpoints", 2)
    third, fourth = (kept.load(kept.path(step)) for step in (3, 4))
    for name, average in third["averaged"].items():
        now = fourth["generator"][f"autoencoder.{name}"]
        torch.testing.assert_close(fourth["averaged"][name], 4 / 13 * average + 9 / 13 * now)


def test_a_finished_stage_is_not_run_again(trained):
    run, summaries = trained
    before = run.model("autoencoder").hash
    again = train_autoencoder(run, launch(run.config.run, "cpu"))
    assert run.model("autoencoder").hash == before
    assert again["best"] == summaries[0]["best"]


def test_initial_weights_are_those_of_a_model_or_checkpoint_or_the_mean_of_several(trained, tmp_path, sounds):
    """A rate of next to nothing leaves them as they were."""
    before, _ = trained
    model = before.stage_folder("autoencoder") / "model"
    checkpoints = Checkpoints(before.stage_folder("autoencoder") / "checkpoints", 2)
    other = checkpoints.path(4)
    parts = [load(model).autoencoder.state_dict(), checkpoints.load(other)["averaged"]]
    for name, init, expected in (
        ("model", str(model), parts[0]),
        ("checkpoint", str(other), parts[1]),
        ("mean", [str(model), str(other)], {key: (parts[0][key] + parts[1][key]) / 2 for key in parts[0]}),
    ):
        values = json.loads(json.dumps(TINY)) | {"optimizer": {"lr": 1e-12}}
        values["stage1"] = {"steps": 1, "init": init}
        run = TrainingRun.create(tmp_path / name, parse_config(values, "test"), sounds)
        train_autoencoder(run, launch(run.config.run, "cpu"))
        found = run.model("autoencoder").autoencoder.state_dict()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-8)
    values["stage1"]["init"] = [str(model), "small"]
    run = TrainingRun.create(tmp_path / "wrong", parse_config(values, "test"), sounds)
    with pytest.raises(UserError, match="'small' is an autoencoder of another shape"):
        train_autoencoder(run, launch(run.config.run, "cpu"))


def assert_same_losses(one, other):
    """Equal but for the order of sums, which AdamW's first steps, signs of gradients, make visible later."""
    assert len(one) == len(other) == 3
    assert one[0] == pytest.approx(other[0], rel=1e-3)
    for a, b in zip(one[1:], other[1:], strict=True):
        names = [name for name in a if not name.endswith("_gradient")]
        assert [a[name] for name in names] == pytest.approx([b[name] for name in names], rel=3e-3)


def test_accumulation_changes_no_loss(tmp_path, sounds):
    rows = []
    for micro in (4, 2):
        run = create(tmp_path / str(micro), sounds, data__micro_batch=micro, stage1__steps=3)
        train_autoencoder(run, launch(run.config.run, "cpu"))
        rows.append(losses(run.stage_folder("autoencoder")))
    assert_same_losses(*rows)


def command(run, sounds, *more):
    path = run.parent / "config.yaml"
    run.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(TINY))
    options = ["--config", str(path), "--out", str(run), "--accelerator", "cpu", *more]
    return ["autoencoder", str(sounds), *options]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_train_as_one(tmp_path, sounds):
    """gloo, global batch 4 in both: the same losses but for the order of sums."""
    steps = ["--set", "stage1.steps=3"]
    train_app(command(tmp_path / "one" / "run", sounds, *steps), standalone_mode=False)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "qincodec"]
    two = command(tmp_path / "two" / "run", sounds, *steps)
    subprocess.run([sys.executable, *launcher, "train", *two], check=True)
    one, two = (losses(tmp_path / name / "run" / "autoencoder") for name in ("one", "two"))
    assert_same_losses(one, two)


def run_killed(arguments, step):
    """Start a training that kills itself when ``step`` has been logged, however long its start takes.

    Nothing of it stays. The test's own time limit ends a wait that has no end.
    """
    killer = (
        "import os, runpy, signal, sys\n"
        "from qincodec.training.log import Log\n"
        "write = Log.write\n"
        "def killed(self, name, at, values):\n"
        "    write(self, name, at, values)\n"
        f"    if at == {step}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Log.write = killed\n"
        f"sys.argv = ['qincodec', 'train', *{arguments!r}]\n"
        "runpy.run_module('qincodec', run_name='__main__')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", killer], start_new_session=True)
    assert process.wait() == -signal.SIGKILL
    while alive_in_session(process.pid):  # its workers find out by themselves
        time.sleep(0.05)


def alive_in_session(session):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_resumed_after_sigkill_bit_for_bit(tmp_path, sounds):
    steps = ["--set", "stage1.steps=14", "--set", "run.validate_every=7", "--set", "data.workers=1"]
    straight, killed = tmp_path / "a" / "run", tmp_path / "b" / "run"
    train_app(command(straight, sounds, *steps), standalone_mode=False)
    run_killed(command(killed, sounds, *steps), step=5)
    saved = Checkpoints(killed / "autoencoder" / "checkpoints", 2).steps()
    assert (saved, len(losses(killed / "autoencoder"))) == ([2, 4], 5)
    # What a kill in the middle of a write leaves behind.
    (killed / "autoencoder" / "checkpoints" / "step-000000099.part").write_bytes(b"half")
    train_app(command(killed, sounds, *steps), standalone_mode=False)
    assert load(straight / "autoencoder" / "model").hash == load(killed / "autoencoder" / "model").hash
    assert losses(straight / "autoencoder") == losses(killed / "autoencoder")
    last = [Checkpoints(run / "autoencoder" / "checkpoints", 2).load_last() for run in (straight, killed)]
    for name, tensor in last[0]["generator"].items():
        assert torch.equal(tensor, last[1]["generator"][name])


def test_a_loss_that_is_not_finite_ends_it_and_the_last_good_state_stays(tmp_path, sounds):
    run = create(tmp_path, sounds, stage1__steps=8)
    step = launch(run.config.run, "cpu")
    from qincodec.training import adversarial

    calls = []

    def broken(reference, estimate, sample_rate):
        calls.append(1)
        value = adversarial_mel(reference, estimate, sample_rate)
        return value * math.nan if len(calls) == 6 else value

    adversarial_mel = adversarial.ms_mel
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adversarial, "ms_mel", broken)
        with pytest.raises(UserError, match=r"not finite by step 6.*last good state, of step 4") as caught:
            train_autoencoder(run, step)
    assert "\n" not in str(caught.value)
    state = Checkpoints(run.stage_folder("autoencoder") / "checkpoints", 2).load_last()
    assert state["step"] == 4
    assert all(torch.isfinite(t).all() for t in state["generator"].values())


def test_a_full_disk_is_reported_and_the_last_state_stays(tmp_path, sounds, monkeypatch):
    run = create(tmp_path, sounds)
    save, calls = torch.save, []

    def full(state, file):
        calls.append(1)
        if len(calls) == 2:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(state, file)

    monkeypatch.setattr(checkpoints_module.torch, "save", full)
    with pytest.raises(UserError, match="the disk is full; the last good state, of step 2, is kept"):
        train_autoencoder(run, launch(run.config.run, "cpu"))
    folder = run.stage_folder("autoencoder") / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-000000002.pt"]
    monkeypatch.setattr(checkpoints_module.torch, "save", save)
    train_autoencoder(run, launch(run.config.run, "cpu"))


def test_another_configuration_is_refused(tmp_path, sounds):
    create(tmp_path, sounds)
    with pytest.raises(UserError, match=r"another configuration \(differs in stage1.steps\)"):
        create(tmp_path, sounds, stage1__steps=9)


def test_checkpoints_of_other_settings_are_refused(tmp_path, sounds):
    run = create(tmp_path, sounds, stage1__steps=2)
    train_autoencoder(run, launch(run.config.run, "cpu"))
    other = TrainingRun.open(run.folder, config(stage1__steps=4))
    with pytest.raises(UserError, match="another configuration"):
        train_autoencoder(other, launch(run.config.run, "cpu"))


def test_stages_in_the_wrong_order(tmp_path, sounds):
    run = create(tmp_path, sounds)
    with pytest.raises(UserError, match="run `qincodec train autoencoder` first"):
        fit_quantizer(run)
    with pytest.raises(UserError, match="run `qincodec train quantizer` first with --kind rvq"):
        finetune(run, launch(run.config.run, "cpu"))
    with pytest.raises(UserError, match="not the folder of a training"):
        TrainingRun.open(tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(3, {"value": torch.ones(3)}, best=True)
    path = checkpoints.path(3)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"step-000000003.pt' cannot be read.*delete it"):
        checkpoints.load_last()


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    torch.save({"step": 1, "x": Attack(tmp_path / "harmed")}, tmp_path / "step-000000001.pt")
    with pytest.raises(UserError, match="cannot be read"):
        Checkpoints(tmp_path, 2).load_last()
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(("batch", "micro"), [(4, 3), (5, 2)])
def test_a_batch_that_cannot_be_shared(tmp_path, sounds, batch, micro):
    run = create(tmp_path, sounds, data__batch_size=batch, data__micro_batch=micro)
    with pytest.raises(UserError, match="does not divide"):
        train_autoencoder(run, launch(run.config.run, "cpu"))


def test_no_such_accelerator():
    with pytest.raises(UserError, match="accelerator 'tpux' cannot be used"):
        launch(config().run, "tpux")


def test_missing_parts_of_stage_2_are_reported_before_its_latents_are_made(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("qincodec.training.quantizer.extract", lambda *_: pytest.fail("latents are made"))
    other = TrainingRun.open(run.folder, config(stage2__kind="faiss_lsq"))
    with pytest.raises(UserError, match=r"need FAISS, which is not installed: pip install"):
        fit_quantizer(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stage2.kind=faiss_rq", "need FAISS"),
        ("stage2.kind=rvk", "did you mean rvq"),
        ("stage2.options={levels: 3}", "does not fit"),
    ],
)
def test_all_reports_errors_in_stage_2_before_stage_1(tmp_path, sounds, change, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    words = ["--config", str(tmp_path / "tiny.yaml"), "--set", change, "--accelerator", "cpu"]
    with pytest.raises(UserError, match=message):
        train_app(["all", str(sounds), "--out", str(tmp_path / "run"), *words], standalone_mode=False)
    assert not (tmp_path / "run").exists()
