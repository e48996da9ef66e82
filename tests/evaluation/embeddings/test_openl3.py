"""OpenL3 held against what the original implementation returned for the same weights and audio."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from baselines import weights
from evaluation.embeddings import EMBEDDINGS
from evaluation.embeddings.base import centred_frames
from evaluation.embeddings.kaiser_best import resample
from evaluation.embeddings.openl3 import OpenL3, OpenL3Wide
from evaluation.embeddings.openl3_network import LAYERS, build_network, front_end, read_weights, to_48k
from qincodec.core.errors import Unavailable, UserError

Shared = Callable[[str], Path]
WEIGHTS = "golden/openl3/random_openl3_audio_mel256_env.h5.gz"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def golden(shared: Shared) -> dict[str, np.ndarray]:
    with np.load(shared("golden/openl3/golden.npz")) as file:
        return dict(file)


@pytest.fixture
def random_weights(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = shared(WEIGHTS)
    monkeypatch.setitem(weights._explicit, "openl3", path)
    return path


@pytest.mark.parametrize("clip", ["dog", "strings"])
def test_front_end_agrees_with_the_original(golden: dict[str, np.ndarray], clip: str) -> None:
    frames = centred_frames(torch.from_numpy(golden[f"{clip}_audio48k"]), 48000, 24000)
    assert frames.shape == (10, 48000)
    difference = front_end(frames[:3])[:, 0].numpy() - golden[f"{clip}_frontend"][..., 0]
    assert np.abs(difference).max() < 1e-3  # dB, down to the rounding noise of empty bands


@pytest.mark.usefixtures("random_weights")
def test_embeddings_agree_with_the_original(golden: dict[str, np.ndarray]) -> None:
    audio = torch.from_numpy(golden["strings_audio48k"])
    wide = OpenL3Wide().embed(audio, 48000).numpy()
    expected = golden["strings_emb6144_hop0.5"]
    assert wide.shape == (10, 6144) and wide.dtype == np.float32
    assert np.abs(wide - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.linalg.norm(wide - expected) < 1e-4 * np.linalg.norm(expected)
    # The 512 values are the maximum over the 12 cells of the 6144.
    narrow = golden["strings_emb512_hop0.5"]
    assert np.abs(wide.reshape(10, 12, 512).max(1) - narrow).max() < 1e-4 * np.abs(narrow).max()


@pytest.mark.usefixtures("random_weights")
def test_the_512_are_the_maximum_of_the_6144(golden: dict[str, np.ndarray]) -> None:
    audio = torch.from_numpy(golden["dog_audio48k"][:40000])
    narrow, wide = OpenL3().embed(audio, 48000), OpenL3Wide().embed(audio, 48000)
    assert narrow.shape == (2, 512)
    torch.testing.assert_close(wide.unflatten(1, (12, 512)).amax(1), narrow, rtol=0, atol=0)


@pytest.mark.long
@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize("clip", ["dog", "strings"])
@pytest.mark.parametrize("hop_s", [0.5, 0.1])
def test_both_clips_and_hops(golden: dict[str, np.ndarray], clip: str, hop_s: float) -> None:
    embedding = OpenL3()
    embedding.hop_s = hop_s
    found = embedding.embed(torch.from_numpy(golden[f"{clip}_audio48k"]), 48000).numpy()
    expected = golden[f"{clip}_emb512_hop{hop_s}"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_resampling_is_resampy_kaiser_best(golden: dict[str, np.ndarray], shared: Shared) -> None:
    import soundfile

    samples, rate = soundfile.read(shared("golden/metrics/dog.flac"), dtype="float32")
    np.testing.assert_allclose(
        to_48k(torch.from_numpy(samples), rate).numpy(), golden["dog_audio48k"], atol=1e-6
    )


@pytest.mark.long  # resampy is compiled first
def test_resampling_is_resampys_to_the_last_bit() -> None:
    """Up and down, clips of a few samples, several blocks, and rates whose filter is read at odd strides."""
    resampy = pytest.importorskip("resampy")
    random = np.random.default_rng(0)
    for rate in (8000, 11_025, 16_000, 44_100, 47_999, 48_001, 88_200, 96_000, 192_000):
        for samples in (5, 100, rate // 3, 2 * rate):
            audio = (0.3 * random.standard_normal(samples)).astype(np.float32)
            expected = resampy.resample(audio, rate, 48_000, filter="kaiser_best")
            np.testing.assert_array_equal(
                resample(audio, rate, 48_000), expected, err_msg=f"{rate}, {samples}"
            )


@pytest.mark.parametrize(
    ("samples", "expected"), [(1, 1), (23_999, 1), (24_000, 1), (24_001, 2), (48_000, 2), (240_000, 10)]
)
def test_number_of_frames(samples: int, expected: int) -> None:
    audio = torch.arange(1, samples + 1, dtype=torch.float32)
    frames = centred_frames(audio, 48000, 24000)
    assert frames.shape == (expected, 48000)
    # Every sample stands where it belongs, zeros elsewhere.
    assert not frames[0, :24000].any()
    assert frames[0, 24000] == 1 and frames[-1].max() == samples


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
@pytest.mark.parametrize("samples", [1, 2, 7])
def test_clips_of_a_few_samples(samples: int, rate: int) -> None:
    audio = to_48k(torch.ones(samples), rate)
    assert 1 <= len(audio) <= 48 and torch.isfinite(audio).all()


def test_silence_is_0_db_everywhere_as_in_the_original() -> None:
    assert not front_end(torch.zeros(2, 48000)).any()
    # Level does not matter: each frame is relative to its own maximum.
    noise = torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(front_end(noise), front_end(noise / 1024), rtol=0, atol=1e-4)
    assert front_end(noise).max() == 0 and front_end(noise).min() >= -80


def test_folding_changes_nothing(shared: Shared) -> None:
    """Batch norms folded into convolutions, pooling before ReLU: as layer after layer written down."""
    layers = read_weights(shared(WEIGHTS))
    arrays = [[torch.from_numpy(array) for array in entries] for _, entries in layers]

    def batch_norm(x: torch.Tensor, entry: list[torch.Tensor]) -> torch.Tensor:
        gamma, beta, mean, variance = entry
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    x = decibels = -80 * torch.rand(1, 1, 32, 24, generator=torch.Generator().manual_seed(0))
    x = batch_norm(x, arrays[0])
    for index, (_, pools) in enumerate(LAYERS):
        kernel, bias = arrays[1 + 2 * index]
        x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1)
        x = batch_norm(x, arrays[2 + 2 * index]).relu()
        x = functional.max_pool2d(x, 2) if pools else x
    kernel, bias = arrays[-1]
    x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1)
    found = build_network(layers)(decibels)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))


# Weights that are not there, or something else


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path))
    monkeypatch.setenv("QINCODEC_OFFLINE", "1")
    monkeypatch.setattr(weights, "_explicit", {})
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["openl3", "openl3-music-6144"])
def test_absent_weights_are_explained_in_one_line(name: str) -> None:
    file = "openl3-music" if "music" in name else "openl3"
    with pytest.raises(Unavailable) as caught:
        EMBEDDINGS.load(name)()
    for text in (str(caught.value), EMBEDDINGS.load(name).unavailable()):
        assert "\n" not in text
        assert f"evaluate weights fetch {file}" in text and f"--weights {file}=PATH" in text


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"x" * 5000, mtime=0)[:40]],
    ids=[
        "empty",
        "not gzip",
        "cut gzip",
    ],  # ids of bytes that hold the time would differ between xdist's workers
)
def test_a_cached_file_of_wrong_content_is_moved_aside(cache: Path, content: bytes) -> None:
    path = cache / weights.entry("openl3").filename
    path.write_bytes(content)
    with pytest.raises(Unavailable, match="evaluate weights fetch openl3"):
        OpenL3()
    assert not path.exists() and path.with_name(f"{path.name}.bad").read_bytes() == content


@pytest.mark.parametrize("name", ["openl3-mel128", "openl3-linear"])
def test_unverified_inputs_are_unavailable(name: str) -> None:
    with pytest.raises(Unavailable, match="has not been compared with the original"):
        EMBEDDINGS.load(name)()


def rewritten(source: Path, target: Path, change: Callable[[h5py.File], None]) -> Path:
    target.write_bytes(gzip.decompress(source.read_bytes()))
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def test_a_plain_h5_and_a_nested_one_are_read_too(shared: Shared, tmp_path: Path) -> None:
    expected = read_weights(shared(WEIGHTS))

    def nest(file: h5py.File) -> None:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = file.attrs["layer_names"]
        for name in [name for name in file if name != "model_weights"]:
            file.move(name, f"model_weights/{name}")

    for change in (lambda file: None, nest):
        found = read_weights(rewritten(shared(WEIGHTS), tmp_path / "w.h5", change))
        assert [name for name, _ in found] == [name for name, _ in expected]
        for (_, ours), (_, theirs) in zip(found, expected, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_files_that_hold_something_else_are_refused(shared: Shared, tmp_path: Path) -> None:
    whole = shared(WEIGHTS).read_bytes()
    (tmp_path / "truncated.h5.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("<html>404</html>")
    (tmp_path / "empty.h5").write_bytes(b"")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1, 2]

    def spoil(file: h5py.File) -> None:
        file["conv2d/conv2d/bias:0"][0] = np.nan

    def shrink(file: h5py.File) -> None:
        del file["conv2d_3/conv2d_3/bias:0"]
        file["conv2d_3/conv2d_3/bias:0"] = np.zeros(64, np.float32)

    def lose(file: h5py.File) -> None:
        file.attrs["layer_names"] = file.attrs["layer_names"][:-1]

    rewritten(shared(WEIGHTS), tmp_path / "nan.h5", spoil)
    rewritten(shared(WEIGHTS), tmp_path / "shape.h5", shrink)
    rewritten(shared(WEIGHTS), tmp_path / "layers.h5", lose)
    reasons = {
        "nan": "NaN",
        "shape": "layer 'conv2d_3' has shapes",
        "layers": "layers with weights instead of",
    }
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(UserError, match="does not hold OpenL3 weights") as caught:
            read_weights(path)
        message = str(caught.value)
        assert "\n" not in message and str(path) in message and "evaluate weights fetch openl3" in message
        assert reasons.get(path.stem, "") in message
