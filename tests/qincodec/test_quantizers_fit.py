"""Fits stream from disk, go on after a kill, and learn real audio."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from qincodec.core.errors import UserError
from qincodec.quantizers.base import FitProgress, Quantizer
from qincodec.quantizers.beam import Search
from qincodec.quantizers.irvq import IRVQ
from qincodec.quantizers.latents import BLOCK, Latents
from qincodec.quantizers.qinco2 import QINCO2, Training, loss_of
from qincodec.quantizers.rvq import RVQ

DIM, N, K = 4, 3, 8
TRAINING = Training(
    epochs=3, batch_size=128, ramp_epochs=1, search=Search(4, 4), save_every_s=0, validation_frames=300
)


def rows(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, DIM)).astype(np.float32)


def small_qinco2() -> QINCO2:
    return QINCO2(DIM, N, K, num_blocks=1, width=8, hidden=8)


# Latents


def test_latents_from_every_source_are_the_same(tmp_path: Path) -> None:
    x = rows(1000)
    mapped = np.memmap(tmp_path / "x.f32", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, shard in enumerate(np.split(x, [300, 301, 301])):
        np.save(folder / f"{number:03d}.npy", shard)
    np.save(tmp_path / "x.npy", x)
    for source in (x, mapped, torch.from_numpy(x), folder, str(folder), tmp_path / "x.npy"):
        latents = Latents(source)
        assert (len(latents), latents.dim) == (1000, DIM)
        np.testing.assert_array_equal(latents.sample(5000, 0), x)


def test_sample_is_without_replacement() -> None:
    x = np.arange(5000, dtype=np.float32)[:, None]
    drawn = Latents(x).sample(800, seed=1)[:, 0]
    assert len(drawn) == len(set(drawn)) == 800
    assert (np.diff(drawn) > 0).all() and drawn.max() > 4500 and drawn.min() < 500
    assert not np.array_equal(drawn, Latents(x).sample(800, seed=2)[:, 0])


def test_batches_hold_every_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qincodec.quantizers.latents.POOL", 3)
    x = np.arange(10_000, dtype=np.float32)[:, None]
    latents = Latents(x)
    assert latents.steps(100, 10**9) == 100
    epoch = list(latents.batches(100, 10**9, seed=0, epoch=0))
    assert all(batch.shape == (100, 1) for batch in epoch)
    seen = torch.cat(epoch)[:, 0].numpy()
    assert sorted(seen) == list(range(10_000))
    # Neighbours in the file are not neighbours in the epoch.
    assert (np.abs(np.diff(seen)) == 1).mean() < 0.02
    again = torch.cat(list(latents.batches(100, 10**9, seed=0, epoch=0)))[:, 0].numpy()
    other = torch.cat(list(latents.batches(100, 10**9, seed=0, epoch=1)))[:, 0].numpy()
    assert np.array_equal(seen, again) and not np.array_equal(seen, other)


@pytest.mark.parametrize("start", [0, 1, 7, 38, 39, 40])
@pytest.mark.parametrize("frames", [10**9, 4096])
def test_batches_continue_within_an_epoch(start: int, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qincodec.quantizers.latents.POOL", 3)
    latents = Latents(rows(10_300))
    whole = list(latents.batches(256, frames, seed=3, epoch=2))
    assert len(whole) == latents.steps(256, frames)
    rest = list(latents.batches(256, frames, seed=3, epoch=2, start=start))
    assert len(rest) == max(0, len(whole) - start)
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_hold_out_shares_no_frame() -> None:
    x = np.arange(100_000, dtype=np.float32)[:, None]
    rest, held = Latents(x).hold_out(5000, seed=0)
    a, b = set(rest.sample(10**9, 0)[:, 0]), set(held.sample(10**9, 0)[:, 0])
    assert not a & b and len(a | b) == 100_000 and 3000 < len(b) < 9000
    assert set(torch.cat(list(rest.batches(64, 10**9, seed=0, epoch=0))).flatten().tolist()) <= a
    with pytest.raises(UserError, match="too few to hold"):
        Latents(x[:BLOCK]).hold_out(10, seed=0)


def test_bad_latents_are_refused(tmp_path: Path) -> None:
    for source, message in [
        (tmp_path / "none.npy", "cannot be read"),
        (tmp_path, "no .npy files"),
        (np.zeros((3, 4)), "float64; they must be float32"),
        (np.zeros((3, 4, 5), np.float32), "not \\(frames"),
        (np.zeros((0, 4), np.float32), "no frames"),
        ([1, 2], "got list"),
    ]:
        with pytest.raises(UserError, match=message):
            Latents(source)  # type: ignore[arg-type]
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        Latents(tmp_path / "objects.npy")
    x = rows(600)
    x[400, 2] = math.nan
    with pytest.raises(UserError, match="NaN, infinity or more than 1e\\+15 between rows 256 and 512"):
        RVQ(DIM, N, K).fit(x)


# Fits that are interrupted


class Stop(Exception):
    pass


def stop_at(number: int) -> Callable[[FitProgress], None]:
    calls = iter(range(1, 10**9))

    def progress(_: FitProgress) -> None:
        if next(calls) == number:
            raise Stop

    return progress


def assert_equal(a: Quantizer, b: Quantizer) -> None:
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


@pytest.mark.parametrize(
    ("make", "more", "stops"),
    [
        (lambda: RVQ(DIM, N, K), {}, (1, 2)),
        (lambda: IRVQ(DIM, N, K), {}, (1, 2)),
        (lambda: IRVQ(DIM, N, K, "weighted"), {}, (2,)),
        # in the RVQ, in the middle of an epoch, at its end, after it, late
        (small_qinco2, {"training": TRAINING}, (2, 3 + 5, 3 + 14, 3 + 15, 3 + 40)),
    ],
    ids=["rvq", "irvq", "irvq-weighted", "qinco2"],
)
def test_interrupted_fit_equals_uninterrupted(
    make: Callable[[], Quantizer], more: dict, stops: tuple[int, ...], tmp_path: Path
) -> None:
    x = rows(2300)
    whole = make()
    whole.fit(x, seed=7, state_dir=tmp_path / "whole", **more)
    assert not list(tmp_path.rglob("fit-state.pt"))
    for stop in stops:
        folder = tmp_path / str(stop)
        with pytest.raises(Stop):
            make().fit(x, seed=7, state_dir=folder, progress=stop_at(stop), **more)
        resumed = make()
        resumed.fit(x, seed=7, state_dir=folder, **more)
        assert_equal(whole, resumed)
        assert not list(folder.rglob("*.pt")) and not list(folder.rglob(".writing-*"))


def test_resumed_fit_does_not_start_over(tmp_path: Path) -> None:
    x = rows(2300)
    with pytest.raises(Stop):
        small_qinco2().fit(x, state_dir=tmp_path, progress=stop_at(3 + 20), training=TRAINING)
    told: list[FitProgress] = []
    small_qinco2().fit(x, state_dir=tmp_path, progress=told.append, training=TRAINING)
    assert told[0].done >= 20 and "RVQ" not in told[0].phase


@pytest.mark.slow
def test_a_killed_fit_continues(tmp_path: Path) -> None:
    """A process that is killed outright, whatever it was doing, leaves a state to go on from."""
    np.save(tmp_path / "x.npy", rows(2300))
    program = textwrap.dedent(
        """
        import os, signal, sys
        from qincodec.quantizers.rvq import RVQ
        def progress(at):
            if at.done == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
        rvq = RVQ(4, 3, 8)
        rvq.fit("x.npy", seed=7, state_dir="state", progress=progress)
        import numpy; numpy.save("codebooks", rvq.codebooks.numpy())
        """
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    codes = [
        subprocess.run([sys.executable, "-c", program, stop], cwd=tmp_path, env=environment).returncode
        for stop in ("2", "0")
    ]
    assert codes == [-9, 0]
    whole = RVQ(DIM, N, K)
    whole.fit(tmp_path / "x.npy", seed=7)
    np.testing.assert_array_equal(np.load(tmp_path / "codebooks.npy"), whole.codebooks.numpy())


def test_state_of_another_fit_is_refused(tmp_path: Path) -> None:
    x = rows(2300)
    with pytest.raises(Stop):
        RVQ(DIM, N, K).fit(x, state_dir=tmp_path, progress=stop_at(1))
    for quantizer, latents, seed in [
        (RVQ(DIM, N, K), rows(2300, seed=1), 0),
        (RVQ(DIM, N, K), x, 1),
        (RVQ(DIM, N + 1, K), x, 0),
        (IRVQ(DIM, N, K), x, 0),
    ]:
        with pytest.raises(UserError, match="state of a fit with other latents or settings"):
            quantizer.fit(latents, seed=seed, state_dir=tmp_path)
    (tmp_path / "fit-state.pt").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"cannot be read .*; delete it to start again"):
        RVQ(DIM, N, K).fit(x, state_dir=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        RVQ(DIM, N, K).fit(x, state_dir=tmp_path / "file" / "state")


# Training of QINCO2


def test_loss_is_the_definition() -> None:
    torch.manual_seed(0)
    model = small_qinco2()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z = torch.randn(20, DIM)
    codes = torch.randint(K, (20, N))
    loss, last = loss_of(model, z, codes)
    partials = [model.decode(codes[:, :m]) for m in range(1, N + 1)]
    expected = sum((z - x_hat).square().mean() for x_hat in partials)
    plain = sum(
        (z - partials[n - 1] - model.preselection[n - 1][codes[:, n]]).square().mean() for n in range(1, N)
    )
    torch.testing.assert_close(loss, expected + plain)
    torch.testing.assert_close(last, (z - partials[-1]).square().mean())
    # The pre-selection's part of the loss sends no gradient into the networks, nor theirs into it.
    loss.backward()
    gradient = model.codebooks.grad.clone()
    model.zero_grad()
    reconstruction = torch.stack([(z - x_hat).square().mean() for x_hat in model.reconstruct(codes)]).sum()
    reconstruction.backward()
    torch.testing.assert_close(model.codebooks.grad, gradient)
    assert model.preselection.grad is None


def test_learning_rate_ramps_and_falls() -> None:
    training = Training(epochs=60, lr=8e-4, ramp_epochs=3)
    rates = [training.rate(step, 100) for step in range(6000)]
    assert rates[0] == pytest.approx(8e-4 / 300) and rates[299] == pytest.approx(8e-4) == max(rates)
    # A quarter of a cosine: at two thirds of it a half is left, as of cos(60 degrees).
    assert rates[300 + 3800] == pytest.approx(4e-4, rel=1e-6)
    assert rates[-1] == pytest.approx(8e-4 * math.pi / 2 / 5700, rel=1e-6)
    assert rates[300:] == sorted(rates[300:], reverse=True)


def test_unused_codewords_get_new_places() -> None:
    """Half of a codebook starts where no frame is; in the end all of it is used."""
    x = rows(4000)
    model = small_qinco2()
    told: list[FitProgress] = []

    def progress(at: FitProgress) -> None:
        told.append(at)
        if at.phase == "epoch 1 of 3" and at.done == 1:
            with torch.no_grad():
                model.codebooks[0, : K // 2] = 1e3
                model.codebooks[1, : K // 2] = 1e3
                model.preselection[0, : K // 2] = 1e3

    model.fit(x, training=TRAINING, progress=progress)
    codes = model.encode(torch.from_numpy(x))
    assert all(len(column.unique()) == K for column in codes.T)
    assert model.codebooks.abs().max() < 10


def test_best_epoch_is_kept() -> None:
    """Training that runs away after its first epoch ends with the quantizer of that epoch."""
    x = rows(2300)
    model, kept = small_qinco2(), {}

    def progress(at: FitProgress) -> None:
        if at.phase == "epoch 2 of 3":
            kept.update(kept or {name: tensor.clone() for name, tensor in model.state_dict().items()})
            with torch.no_grad():
                model.codebooks += 5

    model.fit(x, training=TRAINING, progress=progress)
    held = Latents(x).hold_out(230, 0)[1].sample(300, 0)
    decoded = model.decode(model.encode(torch.from_numpy(held))).numpy()
    assert np.square(decoded - held).mean() < 0.5 * np.square(held).mean()


def test_fit_needs_a_batch_and_something_to_learn() -> None:
    with pytest.raises(UserError, match="too few"):
        small_qinco2().fit(rows(100), training=TRAINING)
    with pytest.raises(UserError, match="cannot be quantized"):
        small_qinco2().fit(np.ones((2300, DIM), np.float32), training=TRAINING)
    with pytest.raises(UserError, match="dimensions"):
        small_qinco2().fit(rows(2300), validation=np.zeros((300, 9), np.float32), training=TRAINING)


# Real audio


def patches(folder: Path, every: int) -> np.ndarray:
    """(frames, 32) log-mel-like patches: log energies of 32 bands of 512-sample frames, hop 256."""
    import soundfile

    out = []
    for path in sorted(folder.rglob("*.*"))[::every]:
        audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
        if len(audio) < 4096:
            continue
        frames = np.lib.stride_tricks.sliding_window_view(audio[: 44100 * 5, 0], 512)[::256]
        power = np.square(np.abs(np.fft.rfft(frames * np.hanning(512), axis=1)))
        edges = np.unique(np.round(np.geomspace(1, 257, 46)).astype(int))[-33:]
        out.append(np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-4))
    return np.concatenate(out).astype(np.float32)


def test_qinco2_beats_rvq_on_real_audio(shared: Callable[[str], Path]) -> None:
    train = Latents(patches(shared("audio/train"), 16))
    held = torch.from_numpy(patches(shared("audio/valid"), 8))
    held = held[:: max(1, len(held) // 1500)]
    stages, size = 4, 32
    # The RVQ that training starts from: same frames, same seed.
    fitted_on, validation = train.hold_out(1500, 0)
    rvq = RVQ(32, stages, size)
    rvq.fit(fitted_on, max_frames=15_000)
    model = QINCO2(32, stages, size, num_blocks=1, width=32, hidden=32)
    training = Training(
        epochs=4,
        epoch_frames=12_000,
        batch_size=256,
        lr=2e-3,
        ramp_epochs=0.5,
        search=Search(4, 2),
        rvq_frames=15_000,
    )
    model.fit(fitted_on, validation=validation, training=training)
    model.search = Search(8, 8)
    for m in range(1, stages + 1):
        errors = [float((q.decode(q.encode(held, m)) - held).square().mean()) for q in (rvq, model)]
        # Stage 1 is a plain codebook in both, and QINCO2's also serves the stages after it.
        assert errors[1] < errors[0] * (1.03 if m == 1 else 0.99), (m, errors)
