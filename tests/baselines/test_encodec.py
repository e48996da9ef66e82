"""EnCodec against the original's codes, scales and audio, and with files that are not what they say."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attack import Attack

from baselines import check_codec, encodec, weights
from baselines.codec import Encoded, Rate
from baselines.encodec import Encodec
from baselines.registry import CODECS
from qincodec import audio as sound
from qincodec.bitstream import pack_codes
from qincodec.core.errors import UserError

torch.set_num_threads(1)
TINY = "untrained:tiny"
pytestmark = pytest.mark.usefixtures("cache")
Shared = Callable[[str], Path]


@pytest.fixture(scope="module")
def tiny() -> Encodec:
    return Encodec(weights=TINY)


@pytest.fixture(scope="module")
def original(shared: Shared) -> Encodec:
    return Encodec(weights=str(shared("golden/encodec/tiny48.th")))


@pytest.fixture(scope="module")
def given(shared: Shared) -> torch.Tensor:
    samples, sample_rate = sound.read(shared("golden/encodec/input.flac"))
    assert sample_rate == 48_000
    return torch.from_numpy(samples)[None]


# ---- the original --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_codebooks", [2, 5, 10, 16])
def test_codes_scales_and_audio_of_the_original(
    shared: Shared, original: Encodec, given: torch.Tensor, num_codebooks: int
) -> None:
    golden = np.load(shared("golden/encodec/tiny48.npz"))
    (clip,) = original.encode(given, original.rates(2)[num_codebooks - 1])
    codes = golden[f"codes_{num_codebooks}"]
    assert np.array_equal(np.asarray(clip.codes), codes[0])
    scales = np.frombuffer(clip.payload[-12:], "<f4")
    np.testing.assert_allclose(scales, golden["scales"][:, 0], rtol=1e-6)
    assert clip.payload == pack_codes(codes, (1024,) * num_codebooks) + scales.tobytes()
    expected = torch.from_numpy(golden[f"audio_{num_codebooks}"])
    torch.testing.assert_close(original.decode([clip]), expected, atol=1e-4, rtol=0)


def test_a_folder_of_transformers_is_the_same_model(
    shared: Shared, original: Encodec, given: torch.Tensor, tmp_path: Path
) -> None:
    model: Any = encodec.load_original(shared("golden/encodec/tiny48.th"))
    model.save_pretrained(tmp_path / "hub")
    rate = original.rates()[4]
    (clip,) = Encodec(weights=str(tmp_path / "hub")).encode(given, rate)
    assert clip.payload == original.encode(given, rate)[0].payload


def test_a_released_file_that_is_another_is_refused_before_it_is_read(shared: Shared, tmp_path: Path) -> None:
    """Its name carries the first digits of its SHA-256."""
    path = weights.cached_path("encodec-48khz")
    path.parent.mkdir(parents=True)
    path.write_bytes(shared("golden/encodec/tiny48.th").read_bytes())
    line = str(Encodec.unavailable())
    assert "begins with 7e698e3e" in line
    assert path.with_name("encodec_48khz-7e698e3e.th.bad").is_file()
    assert "evaluate weights fetch encodec-48khz" in str(Encodec.unavailable())


# ---- the interface -------------------------------------------------------------------------------------


def test_is_registered() -> None:
    assert CODECS.load("encodec") is Encodec


def test_promises_of_the_interface(tiny: Encodec) -> None:
    rates = [tiny.nearest_rate(kbps) for kbps in (8, 16)]
    assert {m.batch_agreement for m in check_codec(tiny, rates=rates)} == {1.0}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_promises_at_every_rate(tiny: Encodec, original: Encodec) -> None:
    for codec in (tiny, original):
        check_codec(codec, rates=codec.rates(), lengths=(1, 2, 47_519, 47_520, 47_521, 48_001))


def test_rates_are_those_of_the_bytes(tiny: Encodec) -> None:
    """1,500 bit/s a codebook, times 48,000 / 47,520 for the overlap, and 32 bits of scale a segment."""
    assert len(tiny.rates()) == 16
    assert tiny.rates(2) == tiny.rates(1)
    audio = 0.1 * torch.randn(1, 1, 47_520 * 20, generator=torch.Generator().manual_seed(0))
    for n in (5, 10):
        rate = tiny.rates()[n - 1]
        assert rate.kbps == pytest.approx((1500 * n + 32) / 0.99 / 1000)
        (clip,) = tiny.encode(audio, rate)
        assert clip.kbps == pytest.approx(rate.kbps, rel=1e-3)
    assert tiny.nearest_rate(8).settings == {"num_codebooks": 5}


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 47_520, 47_521, 48_000, 48_001, 95_041])
def test_odd_lengths(tiny: Encodec, samples: int) -> None:
    audio = 0.1 * torch.randn(1, 2, samples, generator=torch.Generator().manual_seed(1))
    (clip,) = tiny.encode(audio, tiny.rates()[0])
    starts = range(0, samples, 47_520)
    frames = sum(-(-min(48_000, samples - start) // 320) for start in starts)
    assert np.asarray(clip.codes).shape == (1, frames)
    assert len(clip.payload) == -(-10 * frames // 8) + 4 * len(starts)
    assert tiny.decode([clip]).shape == audio.shape


def test_mono_goes_through_both_channels(tiny: Encodec) -> None:
    mono = 0.1 * torch.randn(1, 1, 10_000, generator=torch.Generator().manual_seed(2))
    rate = tiny.rates()[3]
    (single,), (double,) = tiny.encode(mono, rate), tiny.encode(mono.expand(-1, 2, -1), rate)
    assert single.payload == double.payload
    expected = tiny.decode([double]).mean(dim=1, keepdim=True)
    torch.testing.assert_close(tiny.decode([single]), expected)
    stripped = Encoded(single.payload, 48_000, 1, 10_000, side_info=single.side_info)
    assert torch.equal(tiny.decode([stripped]), tiny.decode([single]))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_minutes_in_bounded_memory(tiny: Encodec) -> None:
    audio = 0.1 * torch.randn(1, 1, 600 * 48_000, generator=torch.Generator().manual_seed(3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (clip,) = tiny.encode(audio, tiny.nearest_rate(8))
    decoded = tiny.decode([clip])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # Linux counts in kB
    assert decoded.shape == audio.shape
    assert grown < 1200  # MB; the stereo output is 230, with its weights and copies four times that


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_full_size() -> None:
    codec = Encodec(weights="untrained")
    audio = 0.1 * torch.randn(1, 1, 5 * 48_000, generator=torch.Generator().manual_seed(4))
    (clip,) = codec.encode(audio, codec.nearest_rate(16))
    assert codec.decode([clip]).shape == audio.shape


# ---- random weights and what is refused ----------------------------------------------------------------


def test_random_weights_show(tiny: Encodec) -> None:
    assert tiny.version == "1-untrained"
    assert Encodec(weights=TINY).identity() == tiny.identity()
    assert Encodec.unavailable(TINY) is None


def test_identity_is_the_file(shared: Shared, original: Encodec) -> None:
    digest = hashlib.sha256(shared("golden/encodec/tiny48.th").read_bytes()).hexdigest()
    assert original.identity() == {"name": "encodec", "version": "1", "weights": digest[:16]}


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path, target = tmp_path / "evil.th", tmp_path / "was run"
    torch.save({"encoder.model.0.conv.conv.weight": Attack(target)}, path)
    torch.load(path, weights_only=False)
    assert target.exists(), "the attack itself does not work"
    target.unlink()
    with pytest.raises(UserError, match="refused, no code in it was run") as caught:
        Encodec(weights=str(path))
    assert not target.exists()
    assert "\n" not in str(caught.value)


FIRST = "encoder.model.0.conv.conv.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop(FIRST), "not a 48 kHz EnCodec model"),
        (lambda c: c.pop("decoder.model.15.conv.norm.bias"), r"decoder\.layers\.15\.norm\.bias is missing"),
        (lambda c: c.pop("quantizer.vq.layers.3._codebook.embed"), "unknown|missing"),
        (lambda c: c.update(more=torch.zeros(1)), "more is unknown"),
        (lambda c: c.update({FIRST: c[FIRST][:, :1]}), "of 1 channel"),
        (lambda c: c.update({FIRST: "text"}), "not a 48 kHz EnCodec model"),
        (lambda c: c[FIRST].fill_(torch.inf), "not finite"),
        (lambda c: c.update({"encoder.model.9.conv.conv.weight": torch.zeros(32, 16, 0)}), "EnCodec|instead"),
    ],
)
def test_files_that_are_something_else(
    shared: Shared, tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = dict(torch.load(shared("golden/encodec/tiny48.th"), weights_only=True))
    damage(content)
    torch.save(content, tmp_path / "other.th")
    with pytest.raises(UserError, match=message) as caught:
        Encodec(weights=str(tmp_path / "other.th"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["truncated", "list", "dac"])
def test_files_of_others(shared: Shared, tmp_path: Path, what: str) -> None:
    path = tmp_path / "other.th"
    if what == "truncated":
        path.write_bytes(shared("golden/encodec/tiny48.th").read_bytes()[:100_000])
    elif what == "list":
        torch.save([1, 2], path)
    else:
        path.write_bytes(shared("golden/dac/tiny8k.pth").read_bytes())
    with pytest.raises(UserError, match=str(path)) as caught:
        Encodec(weights=str(path))
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_clips_are_refused(tiny: Encodec, original: Encodec) -> None:
    (clip,) = tiny.encode(torch.zeros(1, 1, 1000), tiny.rates()[0])
    with pytest.raises(UserError, match="was encoded with"):
        original.decode([clip])
    clip.payload = clip.payload[:-4] + np.array([np.nan], "<f4").tobytes()
    with pytest.raises(UserError, match="damaged"):
        tiny.decode([clip])
    clip.payload = clip.payload[:-4]
    with pytest.raises(UserError, match="damaged"):
        tiny.decode([clip])
    with pytest.raises(UserError, match="nearest_rate"):
        tiny.encode(torch.zeros(1, 1, 1000), Rate(8, {"num_codebooks": 17}))
