"""QINCODEC as a codec of evaluations: every promise of the interface, and what identifies a score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import check_codec
from baselines.codec import Encoded, Rate
from baselines.qincodec import Continuous, Qincodec
from baselines.registry import CODECS
from qincodec import codec as model
from qincodec.architectures import SIZES, autoencoder
from qincodec.bitstream import loads, pack_codes
from qincodec.code_tables import CodeTables
from qincodec.core.errors import UserError
from qincodec.quantizers.fsq import FSQ
from qincodec.quantizers.qinco2 import QINCO2

torch.set_num_threads(1)
TINY = "untrained:tiny"


@pytest.fixture(scope="module")
def tiny() -> Qincodec:
    return Qincodec(weights=TINY)


@pytest.fixture
def audio() -> torch.Tensor:
    return 0.2 * torch.randn(2, 2, 5000, generator=torch.Generator().manual_seed(0))


def test_names_are_registered() -> None:
    assert CODECS.load("qincodec") is Qincodec
    assert CODECS.load("qincodec-continuous") is Continuous


def test_promises_of_the_interface(tiny: Qincodec) -> None:
    measured = check_codec(tiny)
    assert {m.batch_agreement for m in measured} == {1.0}
    check_codec(Continuous(weights=TINY))


@pytest.mark.parametrize("channels", [1, 2])
def test_rates_are_totals_and_are_what_the_payload_has(tiny: Qincodec, channels: int) -> None:
    rate = tiny.nearest_rate(16, channels)
    expected = {1: {"num_codebooks": 9}, 2: {"num_codebooks": 6, "side_codebooks": 4}}[channels]
    n = sum(expected.values())
    assert rate.settings == expected
    assert rate.kbps == pytest.approx(n * 1.72265625)
    seconds = 20
    audio = 0.1 * torch.randn(1, channels, seconds * 44_100)
    (clip,) = tiny.encode(audio, rate)
    frames = -(-seconds * 44_100 // 256)
    assert len(clip.payload) == -(-frames * n * 10 // 8)
    assert clip.kbps == pytest.approx(rate.kbps, rel=1e-3)


def test_payload_is_the_codes_and_nothing_else(tiny: Qincodec, audio: torch.Tensor) -> None:
    clips = tiny.encode(audio, tiny.rates(2)[3])
    codes = tiny.model.encode(audio, num_codebooks=(4, 3)).numpy()
    for clip, (mid, side) in zip(clips, codes, strict=True):
        rows = np.concatenate([mid, side[:3]])
        assert clip.payload == pack_codes(rows[None], (1024,) * 7)
        assert clip.codes is not None
        assert np.array_equal(clip.codes, rows)
        assert clip.codebook_sizes == (1024,) * 7
    stripped = [
        Encoded(c.payload, c.sample_rate, c.channels, c.num_samples, side_info=c.side_info) for c in clips
    ]
    expected_audio = tiny.model.decode(torch.from_numpy(codes), 5000)
    assert torch.equal(tiny.decode(stripped), expected_audio)


def test_a_model_with_code_tables_keeps_the_promises(tiny: Qincodec, tmp_path: Path) -> None:
    plain = tiny.model
    assert plain.quantizer is not None
    noise = 0.2 * torch.randn(4, 1, 44_100, generator=torch.Generator().manual_seed(1))
    codes = plain.encode(noise).permute(0, 1, 3, 2).flatten(0, 2).numpy()
    tables = CodeTables.count(codes, plain.quantizer.codebook_sizes)
    model.Qincodec(plain.autoencoder, plain.quantizer, tables=tables).save(tmp_path / "m")
    codec = Qincodec(weights=str(tmp_path / "m"))
    check_codec(codec)
    rate = codec.rates()[4]
    (clip,) = codec.encode(noise[:1], rate)
    (packed,) = tiny.encode(noise[:1], tiny.rates()[4])
    assert clip.codes is not None
    assert np.array_equal(clip.codes, packed.codes)
    assert clip.payload == tables.encode(clip.codes[None])
    assert len(clip.payload) < len(packed.payload)
    assert clip.kbps == pytest.approx(rate.kbps, rel=0.1)  # on the mean
    assert torch.equal(codec.decode([clip]), tiny.decode([packed]))
    for wrong in (clip.payload[:-4], clip.payload + bytes(4), b""):
        with pytest.raises(UserError, match="damaged"):
            codec.decode([replace(clip, payload=wrong)])


def test_continuous_is_the_autoencoder(audio: torch.Tensor) -> None:
    control = Continuous(weights=TINY)
    assert control.control
    assert control.rates(2) == [Rate(None)]
    assert control.nearest_rate(16).label == "none"
    clips = control.encode(audio, Rate(None))
    assert len(clips[0].payload) == 2 * 20 * 8 * 4
    with torch.no_grad():
        expected = torch.stack([control.model.autoencoder(item) for item in audio])
    torch.testing.assert_close(control.decode(clips), expected, atol=1e-5, rtol=1e-4)


def test_continuous_needs_no_quantizer(tmp_path: Path, audio: torch.Tensor) -> None:
    model.Qincodec(autoencoder(SIZES["tiny"])).save(tmp_path / "m")
    weights = str(tmp_path / "m")
    check = Continuous(weights=weights)
    assert check.decode(check.encode(audio, Rate(None))).shape == audio.shape
    with pytest.raises(UserError, match="no quantizer"):
        Qincodec(weights=weights).rates()


def test_stereo_clips_of_before_are_left_and_right(tiny: Qincodec) -> None:
    """Out of run folders of programs that coded each channel by itself."""
    data = Path(__file__).parents[1] / "qincodec" / "data"
    _, codes = loads((data / "left_right.qnc").read_bytes())
    side_info = {"model": tiny.weights_hash, "num_codebooks": 3}
    clip = Encoded(pack_codes(codes, (1024,) * 3), 44_100, 2, 1500, side_info=side_info)
    expected = np.load(data / "left_right.npy")
    np.testing.assert_allclose(tiny.decode([clip])[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("gains", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_a_source_in_the_middle_or_in_one_channel_takes_the_bytes_of_mono(
    tiny: Qincodec, audio: torch.Tensor, gains: tuple[int, int]
) -> None:
    clip = torch.stack([gain * audio[:1, 0] for gain in gains], 1)
    low, high = tiny.rates(2)[3], tiny.rates(2)[6]
    (encoded,) = tiny.encode(clip, low)
    assert len(encoded.payload) == -(-20 * 4 * 10 // 8)  # 20 frames of 4 codebooks of the mid
    assert encoded.codes is not None
    assert [len(row) for row in encoded.codes] == 4 * [20] + 3 * [0]
    assert tiny.truncate(*tiny.encode(clip, high), low).to_bytes() == encoded.to_bytes()
    left, right = tiny.decode([Encoded.from_bytes(encoded.to_bytes())])[0]
    for channel, gain in zip((left, right), gains, strict=True):
        assert gain or not any(gains) or not channel.any()
    assert gains[0] != gains[1] or torch.equal(left, right)


# ---- what identifies a score ---------------------------------------------------------------------------


def test_random_weights_show(tiny: Qincodec, tmp_path: Path) -> None:
    assert tiny.version == "1-untrained"
    assert tiny.identity() == {
        "name": "qincodec",
        "version": "1-untrained",
        "weights": tiny.model.hash[:16],
        "quantizer": {"kind": "rvq"},
    }
    tiny.model.save(tmp_path / "saved")
    assert Qincodec(weights=str(tmp_path / "saved")).version == "1-untrained"


def test_models_and_settings_have_different_identities(tmp_path: Path) -> None:
    identities = []
    for seed, quantizer in enumerate((FSQ(8, bits=10), QINCO2(8, 2, 16, 1, 8, 8))):
        torch.manual_seed(seed)
        model.Qincodec(autoencoder(SIZES["tiny"]), quantizer).save(tmp_path / quantizer.kind)
        identities.append(Qincodec(weights=str(tmp_path / quantizer.kind)).identity())
    assert identities[0]["version"] == "1"
    assert identities[0]["weights"] != identities[1]["weights"]
    assert identities[0]["quantizer"] == {"kind": "fsq"}
    searching = Qincodec(weights=str(tmp_path / "qinco2"))
    assert searching.model.quantizer is not None
    settings = searching.model.quantizer.settings()
    assert settings
    assert searching.identity()["quantizer"] == {"kind": "qinco2", **settings}
    others = [CODECS.load(f"qincodec-{name}")(weights=str(tmp_path / "qinco2")) for name in ("fast", "best")]
    widths = [codec.identity()["quantizer"]["beam"] for codec in (others[0], searching, others[1])]
    assert widths == [16, 32, 64]
    assert {codec.weights_hash for codec in others} == {searching.weights_hash}
    audio = 0.2 * torch.randn(1, 1, 5000, generator=torch.Generator().manual_seed(0))
    clips = others[0].encode(audio, others[0].rates()[0])
    assert torch.equal(searching.decode(clips), others[1].decode(clips))


# ---- what is refused -----------------------------------------------------------------------------------


def test_untrained_weights_are_used_by_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qincodec.model_folder.PRETRAINED", tmp_path)
    for codec in (Qincodec, Continuous):
        reason = codec.unavailable()
        assert reason is not None
        assert "no trained weights came with this installation" in reason
        assert f"--weights {codec.name}=PATH" in reason
        assert codec.unavailable(TINY) is None
        assert "not a model" in (codec.unavailable(str(tmp_path / "none")) or "")
    with pytest.raises(UserError, match="no trained weights"):
        Qincodec()
    model.load(TINY).save(tmp_path / "shipped")
    assert Qincodec.unavailable() is None
    assert Qincodec.unavailable("shipped") is None


@pytest.mark.parametrize("kind", [Qincodec, Continuous])
def test_damaged_and_foreign_clips_are_refused(kind: type, audio: torch.Tensor) -> None:
    codec = kind(weights=TINY)
    (clip, _) = codec.encode(audio, codec.rates(2)[0])
    clip.payload = clip.payload[:-1]
    with pytest.raises(UserError, match="damaged"):
        codec.decode([clip])
    (clip, _) = codec.encode(audio, codec.rates(2)[0])
    with pytest.raises(UserError, match="was encoded with"):
        kind(weights="untrained:small").decode([clip])
    with pytest.raises(UserError):
        codec.encode(torch.zeros(1, 3, 100), codec.rates(2)[0])
