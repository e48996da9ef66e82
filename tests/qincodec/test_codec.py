"""The codec: its halves put together by hand, rates from the paper, long signals against whole ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qincodec import model_folder
from qincodec.architectures import SIZES, autoencoder
from qincodec.autoencoder import CHUNK_FRAMES
from qincodec.code_tables import CodeTables
from qincodec.codec import Qincodec, load
from qincodec.core.errors import UserError
from qincodec.quantizers.base import Quantizer
from qincodec.quantizers.fsq import FSQ
from qincodec.quantizers.rvq import RVQ

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny() -> Qincodec:
    return load("untrained:tiny")


@pytest.fixture(scope="module")
def audio() -> torch.Tensor:
    return 0.2 * torch.randn(3, 2, 10_001, generator=torch.Generator().manual_seed(0))


def test_untrained_weights_are_always_the_same_and_leave_the_generator_alone(tiny: Qincodec) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = load("untrained:tiny")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.hash == tiny.hash
    assert not again.trained
    assert load("untrained:small").hash != tiny.hash


def test_a_stored_model_loads_without_torchs_compiler() -> None:
    """Which takes a second of CPU time to import, four times as long as all else."""
    code = "import sys; from qincodec import codec; codec.load()"
    code += "; sys.exit(' '.join({'torch._dynamo', 'sympy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_rates_are_the_papers() -> None:
    with torch.device("meta"):
        codec = Qincodec(autoencoder(SIZES["paper-d32"]), RVQ(32, 14))
    rates = dict(codec.rates())
    assert {n: round(kbps, 2) for n, kbps in rates.items() if n in (1, 2, 5, 6, 9, 14)} == {
        1: 1.72,
        2: 3.45,
        5: 8.61,
        6: 10.34,
        9: 15.50,
        14: 24.12,
    }
    assert rates[9] == pytest.approx(15.5039, abs=1e-4)
    assert [codec.codebooks_for(kbps) for kbps in (1.6, 3, 8, 10, 16, 24, 26.5)] == [1, 2, 5, 6, 9, 14, 14]
    # Two channels: mid and side, which has three fifths of the codebooks, rounded up; and all at the end.
    assert codec.codebooks_for(16, channels=2) == (6, 4)
    assert codec.rates(2)[8] == ((9, 6), pytest.approx(15 * 1.72265625, abs=1e-4))
    assert codec.rates(2)[-1] == ((14, 14), pytest.approx(2 * rates[14]))
    assert codec.rates(3)[8] == (9, pytest.approx(3 * rates[9]))


@pytest.mark.parametrize("kbps", [0.5, 27, 64, 1e9, 0, -8, float("nan")])
def test_rates_out_of_reach_are_refused_with_the_range(tiny: Qincodec, kbps: float) -> None:
    with pytest.raises(UserError, match=r"1\.7 to 24\.1 kbps"):
        tiny.codebooks_for(kbps)


def test_codes_are_quantized_latents(tiny: Qincodec, audio: torch.Tensor) -> None:
    audio = audio[:, :1]
    codes = tiny.encode(audio, num_codebooks=5)
    assert codes.shape == (3, 1, 5, 40)
    assert codes.dtype == torch.int64
    assert tiny.quantizer is not None
    with torch.no_grad():
        latents = tiny.autoencoder.encode(audio[1])
        by_hand = tiny.quantizer.encode(latents[0], 5)
        assert torch.equal(codes[1, 0], by_hand.T)
        decoded = tiny.autoencoder.decode(tiny.quantizer.decode(by_hand)[None])
    assert torch.equal(tiny.decode(codes, 10_001)[1, 0], decoded[0, :10_001])
    assert torch.equal(tiny.encode_latents(audio)[1, 0], latents[0])
    assert tiny.decode(codes).shape == (3, 1, 40 * 256)


def test_items_and_channels_do_not_depend_on_each_other(tiny: Qincodec, audio: torch.Tensor) -> None:
    codes = tiny.encode(audio)
    assert torch.equal(tiny.encode(audio[2:]), codes[2:])
    assert torch.equal(tiny.decode(codes[2:]), tiny.decode(codes)[2:])
    three = torch.cat([audio, audio[:, :1]], 1)
    codes = tiny.encode(three)
    assert torch.equal(tiny.encode(three[2:, 1:2]), codes[2:, 1:2])
    assert torch.equal(tiny.decode(codes[2:, 1:2]), tiny.decode(codes)[2:, 1:2])


def test_kbps_is_the_total_over_the_channels(tiny: Qincodec, audio: torch.Tensor) -> None:
    assert tiny.encode(audio, kbps=16).shape[2] == 6
    assert (tiny.encode(audio, kbps=16)[:, 1, :, 0] >= 0).sum(1).tolist() == [4, 4, 4]
    assert tiny.encode(audio[:, :1], kbps=16).shape[2] == 9
    assert tiny.encode(audio).shape[2] == 14


def test_reconstruct_and_the_way_without_quantizer(tiny: Qincodec, audio: torch.Tensor) -> None:
    assert torch.equal(tiny.reconstruct(audio, kbps=16), tiny.decode(tiny.encode(audio, kbps=16), 10_001))
    latents = tiny.encode_latents(audio)
    with torch.no_grad():
        expected = tiny.autoencoder(audio[0])
    torch.testing.assert_close(tiny.decode_latents(latents, 10_001)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 255, 256, 257])
def test_very_short_audio(tiny: Qincodec, samples: int) -> None:
    out = tiny.reconstruct(torch.full((1, 1, samples), 0.5))
    assert out.shape == (1, 1, samples)
    assert torch.isfinite(out).all()


def test_what_comes_out_can_be_worked_on(tiny: Qincodec, audio: torch.Tensor) -> None:
    latents = tiny.encode_latents(audio).requires_grad_()
    latents.square().sum().backward()  # not a tensor of inference mode
    assert latents.grad is not None


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(100),
        torch.zeros(1, 100),
        torch.zeros(1, 1, 0),
        torch.zeros(0, 1, 100),
        torch.zeros(1, 1, 100, dtype=torch.int16),
        torch.tensor([[[0.0, float("nan")]]]),
        torch.tensor([[[0.0, float("inf")]]]),
    ],
)
def test_bad_audio_is_refused(tiny: Qincodec, bad: torch.Tensor) -> None:
    with pytest.raises(UserError):
        tiny.encode(bad)
    with pytest.raises(UserError):
        tiny.encode_latents(bad)


def test_bad_requests_are_refused(tiny: Qincodec, audio: torch.Tensor) -> None:
    codes = tiny.encode(audio[:1], num_codebooks=2)
    for call in (
        lambda: tiny.encode(audio, kbps=16, num_codebooks=9),
        lambda: tiny.encode(audio, num_codebooks=0),
        lambda: tiny.encode(audio, num_codebooks=15),
        lambda: tiny.encode(audio, num_codebooks=(3, 4)),
        lambda: tiny.encode(audio[:, :1], num_codebooks=(4, 3)),
        lambda: tiny.encode(audio, predictions=[0, 0, 9]),
        lambda: tiny.encode(audio, predictions=[0]),
        lambda: tiny.decode(torch.full_like(codes, -1)),
        lambda: tiny.decode(codes[0]),
        lambda: tiny.decode(codes.float()),
        lambda: tiny.decode(codes + 1024),
        lambda: tiny.decode(codes - 1024),
        lambda: tiny.decode(codes, 40 * 256 + 1),
        lambda: tiny.decode(codes, 39 * 256),
        lambda: load("untrained:huge"),
        lambda: load("untrained:tiny", device="nonsense"),
    ):
        with pytest.raises(UserError):
            call()


# ---- long signals --------------------------------------------------------------------------------------


def test_long_signals_have_the_codes_and_samples_of_the_whole(tiny: Qincodec) -> None:
    samples = (2 * CHUNK_FRAMES + 300) * 256 - 100
    assert tiny.quantizer is not None
    audio = 0.2 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(1))
    chunked = tiny.encode(audio, num_codebooks=9)
    with torch.no_grad():
        whole = tiny.quantizer.encode(tiny.autoencoder.encode(audio[0])[0], 9).T
        assert (chunked[0, 0] == whole).float().mean() > 0.999  # float rounding may decide a near tie
        expected = tiny.autoencoder.decode(tiny.quantizer.decode(chunked[0, 0].T)[None])
    decoded = tiny.decode(chunked, samples)
    torch.testing.assert_close(decoded[0], expected[:, :samples], atol=1e-5, rtol=1e-4)
    # And no seams: where chunks meet the difference is no larger than elsewhere.
    difference = (decoded[0, 0] - expected[0, :samples]).abs()
    seam = CHUNK_FRAMES * 256
    assert float(difference[seam - 600 : seam + 600].max()) <= 2 * float(difference.max()) + 1e-7


def test_blocks_may_have_any_length(tiny: Qincodec, audio: torch.Tensor) -> None:
    codes = torch.cat(list(tiny.encode_blocks(audio[0].split(777, 1), 3)), 2)
    assert torch.equal(codes, tiny.encode(audio[:1], num_codebooks=3)[0])
    out = torch.cat(list(tiny.decode_blocks(codes)), 1)
    torch.testing.assert_close(out, tiny.decode(codes[None])[0], atol=1e-6, rtol=1e-5)


# ---- models on disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", [RVQ(8, 3, 16), FSQ(8, bits=12), None])
def test_saved_models_come_back(quantizer: Quantizer | None, tmp_path: Path, audio: torch.Tensor) -> None:
    torch.manual_seed(3)
    codec = Qincodec(autoencoder(SIZES["tiny"]), quantizer)
    digest = codec.save(tmp_path / "model")
    state = torch.get_rng_state()
    loaded = load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.hash == codec.hash == digest
    assert loaded.model_id.hex() == digest[:16]
    assert loaded.trained
    assert torch.equal(loaded.encode_latents(audio), codec.encode_latents(audio))
    if quantizer is not None:
        assert torch.equal(loaded.encode(audio), codec.encode(audio))
        assert torch.equal(loaded.reconstruct(audio), codec.reconstruct(audio))
        assert loaded.rates() == codec.rates()


def test_random_weights_stay_marked_when_saved(tiny: Qincodec, tmp_path: Path) -> None:
    tiny.save(tmp_path / "model")
    assert not load(tmp_path / "model").trained


def test_a_quantizer_with_one_rate_has_one(audio: torch.Tensor) -> None:
    codec = Qincodec(autoencoder(SIZES["tiny"]), FSQ(8, bits=12, levels=(5, 5, 5, 4, 4)))
    # 2000 values of a frame take 11 bits.
    assert codec.rates() == [(5, pytest.approx(11 * 172.265625 / 1000))]
    with pytest.raises(UserError, match=r"2 channel\(s\) at 3\.8 kbps only"):
        codec.encode(audio, kbps=16)
    assert codec.encode(audio[:, :1], kbps=1.9).shape == (3, 1, 5, 40)


def test_code_tables_belong_to_the_model(tmp_path: Path, audio: torch.Tensor) -> None:
    torch.manual_seed(4)
    quantizer = RVQ(8, 3, 16)
    quantizer.codebooks *= 0.1  # as large as latents of random weights, so that all codes occur
    plain = Qincodec(autoencoder(SIZES["tiny"]), quantizer)
    codes = plain.encode(audio).permute(0, 1, 3, 2).flatten(0, 2).numpy()
    tables = CodeTables.count(codes, (16,) * 3)
    codec = Qincodec(plain.autoencoder, plain.quantizer, tables=tables)
    assert codec.save(tmp_path / "model") != plain.hash
    loaded = load(tmp_path / "model")
    assert loaded.hash == codec.hash
    assert loaded.tables is not None
    assert all(map(np.array_equal, loaded.tables.frequencies, tables.frequencies))
    # Rates are what codes take on the mean, here over the very codes that were counted.
    assert loaded.rates()[2] == (3, pytest.approx(tables.mean_bits(codes) * 172.265625 / 1000, rel=0.02))
    assert loaded.rates()[2][1] < plain.rates()[2][1]
    with pytest.raises(UserError, match="other codebooks"):
        Qincodec(plain.autoencoder, RVQ(8, 2, 16), tables=tables)
    config, tensors = codec._state()
    model_folder.save(tmp_path / "bad", config, tensors | {"tables.1": torch.ones(16, dtype=torch.int32)})
    with pytest.raises(UserError, match="not a distribution"):
        load(tmp_path / "bad")


def test_a_model_without_quantizer_says_so(audio: torch.Tensor) -> None:
    codec = Qincodec(autoencoder(SIZES["tiny"]))
    for call in (codec.rates, lambda: codec.encode(audio), lambda: codec.codebooks_for(16)):
        with pytest.raises(UserError, match="no quantizer"):
            call()


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="16 dimensions"):
        Qincodec(autoencoder(SIZES["tiny"]), RVQ(16, 2, 4))
    codec = Qincodec(autoencoder(SIZES["tiny"]), RVQ(8, 2, 4))
    config, tensors = codec._state()
    for changes, removed in [
        ({"quantizer": {"kind": "nonsense"}}, None),
        ({"quantizer": {"kind": 3}}, None),
        ({"quantizer": {"kind": "rvq", "dim": 8, "num_codebooks": 3, "codebook_size": 4}}, None),
        ({"quantizer": {"kind": "rvq", "dim": 8}}, None),
        ({"quantizer": 7}, None),
        ({"autoencoder": {"dim": 9}}, None),
        ({"autoencoder": [1]}, None),
        ({}, "quantizer.codebooks"),
        ({}, "autoencoder.head.bias"),
    ]:
        kept = {name: tensor for name, tensor in tensors.items() if name != removed}
        model_folder.save(tmp_path / "model", config | changes, kept)
        with pytest.raises(UserError, match="model '") as caught:
            load(tmp_path / "model")
        assert "\n" not in str(caught.value)
    model_folder.save(tmp_path / "model", config, tensors | {"extra.x": torch.zeros(1)})
    with pytest.raises(UserError, match="extra"):
        load(tmp_path / "model")


def test_fine_tuning_is_recorded_and_other_models_keep_their_hash(tmp_path: Path, tiny: Qincodec) -> None:
    hashes = set()
    for finetuned in (None, False, True):
        codec = Qincodec(tiny.autoencoder, tiny.quantizer, trained=False, finetuned=finetuned)
        hashes.add(codec.save(tmp_path / "model"))
        assert load(tmp_path / "model").finetuned is finetuned
    assert len(hashes) == 3 and tiny.hash in hashes
    config, tensors = tiny._state()
    model_folder.save(tmp_path / "model", config | {"finetuned": None}, tensors)
    with pytest.raises(UserError, match="finetuned must be true or false"):
        load(tmp_path / "model")


def test_headers_of_other_models_are_refused(
    tiny: Qincodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = tiny.header(channels=2, num_codebooks=9, source_rate=48_000, source_samples=96_001)
    tiny.check_header(header)
    assert (header.num_samples, header.num_frames) == (88_201, 345)
    other = load("untrained:small")
    with pytest.raises(UserError, match="was encoded with model"):
        other.check_header(header)
    tiny.save(tmp_path / "small-other")
    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path)
    with pytest.raises(UserError, match=r"give the model it was encoded with, small-other$"):
        other.check_header(header)
