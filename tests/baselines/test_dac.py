"""DAC against the original's codes and audio, on long clips, and with files that are not what they say."""

from __future__ import annotations

import hashlib
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attack import Attack

from baselines import check_codec, dac, weights
from baselines.codec import Encoded, Rate
from baselines.dac import Dac, Dac16, Dac24
from baselines.registry import CODECS
from qincodec.bitstream import pack_codes
from qincodec.core.errors import UserError

torch.set_num_threads(1)
TINY = "untrained:tiny"
pytestmark = pytest.mark.usefixtures("cache")
Shared = Callable[[str], Path]


@pytest.fixture(scope="module")
def tiny() -> Dac:
    return Dac(weights=TINY)


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return 0.2 * torch.randn(1, 2, 60_001, generator=torch.Generator().manual_seed(0))


def rate_of(codec: Dac, num_codebooks: int) -> Rate:
    return next(rate for rate in codec.rates() if rate.settings["num_codebooks"] == num_codebooks)


# ---- the original --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_codebooks"), [("tiny8k", 9), ("tiny8k", 5), ("tiny16k", 18), ("tiny16k", 9)]
)
def test_codes_and_audio_of_the_original(shared: Shared, name: str, num_codebooks: int) -> None:
    codec = Dac(weights=str(shared(f"golden/dac/{name}.pth")))
    golden = np.load(shared(f"golden/dac/{name}.npz"))
    (clip,) = codec.encode(torch.from_numpy(golden["input"]), rate_of(codec, num_codebooks))
    assert clip.codes is not None
    assert np.array_equal(clip.codes, golden[f"codes_{num_codebooks}"][0])
    expected = torch.from_numpy(golden[f"audio_{num_codebooks}"])
    torch.testing.assert_close(codec.decode([clip]), expected, atol=1e-4, rtol=0)


def test_rate_picks_model_and_codebooks(shared: Shared) -> None:
    paths = {name: shared(f"golden/dac/{name}.pth") for name in ("tiny8k", "tiny16k")}
    weights.use("dac-8kbps", paths["tiny8k"])
    weights.use("dac-16kbps", paths["tiny16k"])
    codec = Dac()
    for kbps, model, n in [(2.6, "8kbps", 3), (8, "8kbps", 9), (12, "16kbps", 14), (16, "16kbps", 18)]:
        rate = codec.nearest_rate(kbps)
        assert rate.settings == {"model": model, "num_codebooks": n}
        assert rate.kbps == pytest.approx(n * 10 * 44.1 / 512)
        golden = np.load(shared(f"golden/dac/{'tiny8k' if model == '8kbps' else 'tiny16k'}.npz"))
        if f"codes_{n}" in golden:
            (clip,) = codec.encode(torch.from_numpy(golden["input"]), rate)
            assert np.array_equal(np.asarray(clip.codes), golden[f"codes_{n}"][0])
    assert codec.nearest_rate(16, 2).settings == {"model": "8kbps", "num_codebooks": 9}
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths.values()]
    assert codec.identity() == {"name": "dac", "version": "1", "weights": "-".join(digests)}
    one = Dac(weights="16kbps")
    assert [rate.settings for rate in one.rates()][::17] == [
        {"model": "16kbps", "num_codebooks": 1},
        {"model": "16kbps", "num_codebooks": 18},
    ]
    assert one.weights_hash == digests[1]


def test_a_folder_of_transformers_is_the_same_model(shared: Shared, tmp_path: Path) -> None:
    path = shared("golden/dac/tiny8k.pth")
    golden = np.load(shared("golden/dac/tiny8k.npz"))
    dac.load_original(path).save_pretrained(tmp_path / "hub")  # type: ignore[operator]
    codec = Dac(weights=str(tmp_path / "hub"))
    (clip,) = codec.encode(torch.from_numpy(golden["input"]), rate_of(codec, 9))
    assert np.array_equal(np.asarray(clip.codes), golden["codes_9"][0])
    (tmp_path / "hub" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        Dac(weights=str(tmp_path / "hub"))


def test_a_dimension_for_each_codebook(shared: Shared, tmp_path: Path) -> None:
    """Two more dimensions of the third codebook, in which everything is zero, change nothing."""
    content = torch.load(shared("golden/dac/tiny8k.pth"), weights_only=True)
    tensors, place = content["state_dict"], "quantizer.quantizers.2"
    content["metadata"]["kwargs"]["codebook_dim"] = [8, 8, 10, 8, 8, 8, 8, 8, 8]
    pad = torch.nn.functional.pad
    for name, places in {
        "codebook.weight": (0, 2),
        "in_proj.bias": (0, 2),
        "out_proj.weight_v": (0, 0, 0, 2),
    }.items():
        tensors[f"{place}.{name}"] = pad(tensors[f"{place}.{name}"], places)
    tensors[f"{place}.in_proj.weight_v"] = pad(
        tensors[f"{place}.in_proj.weight_v"], (0, 0, 0, 0, 0, 2), value=1
    )
    tensors[f"{place}.in_proj.weight_g"] = pad(tensors[f"{place}.in_proj.weight_g"], (0, 0, 0, 0, 0, 2))
    torch.save(content, tmp_path / "listed.pth")
    golden = np.load(shared("golden/dac/tiny8k.npz"))
    codec = Dac(weights=str(tmp_path / "listed.pth"))
    (clip,) = codec.encode(torch.from_numpy(golden["input"]), rate_of(codec, 9))
    assert np.array_equal(np.asarray(clip.codes), golden["codes_9"][0])
    expected = torch.from_numpy(golden["audio_9"])
    torch.testing.assert_close(codec.decode([clip]), expected, atol=1e-4, rtol=0)
    content["metadata"]["kwargs"]["codebook_dim"] = [8, 8]
    torch.save(content, tmp_path / "short.pth")
    with pytest.raises(UserError, match="2 numbers of codebook_dim for 9 codebooks"):
        Dac(weights=str(tmp_path / "short.pth"))


def test_a_package_as_dac_saves_it_by_default(tmp_path: Path) -> None:
    """It is named, with the file that is wanted; the program in it is not run."""
    ran = tmp_path / "ran"
    with torch.package.PackageExporter(tmp_path / "package.pth") as exporter:
        exporter.save_source_string("DAC", f"open({str(ran)!r}, 'w').close()")
        exporter.save_text("DAC", "DAC.pth", "x")
    with pytest.raises(UserError, match=r"a package of torch\.package.*weights\.pth with save_to_folder"):
        Dac(weights=str(tmp_path / "package.pth"))
    assert not ran.exists()


# ---- the interface -------------------------------------------------------------------------------------


def test_names_are_registered() -> None:
    assert [CODECS.load(name) for name in ("dac", "dac-24khz", "dac-16khz")] == [Dac, Dac24, Dac16]


def test_promises_of_the_interface(tiny: Dac) -> None:
    rates = [tiny.nearest_rate(kbps) for kbps in (8, 16)]
    assert {m.batch_agreement for m in check_codec(tiny, rates=rates)} == {1.0}


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", [Dac, Dac24, Dac16])
def test_promises_at_every_rate(kind: type[Dac]) -> None:
    codec = kind(weights=TINY)
    check_codec(codec, rates=codec.rates())


@pytest.mark.parametrize(("kind", "most_kbps"), [(Dac24, 24), (Dac16, 6)])
def test_other_sample_rates(kind: type[Dac], most_kbps: float) -> None:
    codec = kind(weights=TINY)
    assert codec.rates()[-1].kbps == most_kbps
    # Their decoders give 8 samples less than the frames have; a clip that needs them takes a frame more.
    for samples, frames in [(320 * 3 - 8, 3), (320 * 3, 4), (1, 1)]:
        (clip,) = codec.encode(torch.full((1, 1, samples), 0.1), codec.rates()[0])
        assert np.asarray(clip.codes).shape == (1, frames)
        assert codec.decode([clip]).shape == (1, 1, samples)


def test_payload_is_the_codes_and_nothing_else(tiny: Dac, noise: torch.Tensor) -> None:
    (clip,) = tiny.encode(noise, tiny.rates(2)[3])
    codes = np.asarray(clip.codes).reshape(2, 4, -1)
    assert clip.payload == pack_codes(codes, (1024,) * 4)
    assert len(clip.payload) == -(-2 * 4 * 10 * 118 // 8)  # ceil(60001 / 512) frames
    stripped = Encoded(clip.payload, 44_100, 2, 60_001, side_info=clip.side_info)
    assert torch.equal(tiny.decode([stripped]), tiny.decode([clip]))
    for row in range(2):
        (alone,) = tiny.encode(noise[:, row : row + 1], tiny.rates()[3])
        assert np.array_equal(np.asarray(alone.codes), codes[row])


@pytest.mark.parametrize("kind", [Dac, Dac24])
def test_blocks_are_the_whole_clip(
    kind: type[Dac], noise: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = next(iter(kind(weights=TINY)._networks.values()))
    network.model.double()
    audio = noise[:, :1].double()
    with torch.inference_mode():
        codes = network.encode(audio, 9)
        expected = network.decode(codes, audio.shape[-1])
        monkeypatch.setattr(dac, "BLOCK_FRAMES", 17)
        assert torch.equal(network.encode(audio, 9), codes)
        torch.testing.assert_close(network.decode(codes, audio.shape[-1]), expected, atol=1e-9, rtol=0)


def test_blocks_of_the_original_model(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dac, "BLOCK_FRAMES", 17)
    codec = Dac(weights=str(shared("golden/dac/tiny8k.pth")))
    golden = np.load(shared("golden/dac/tiny8k.npz"))
    (clip,) = codec.encode(torch.from_numpy(golden["input"]), rate_of(codec, 9))
    assert np.array_equal(np.asarray(clip.codes), golden["codes_9"][0])
    expected = torch.from_numpy(golden["audio_9"])
    torch.testing.assert_close(codec.decode([clip]), expected, atol=1e-4, rtol=0)


def test_context_is_what_the_networks_see() -> None:
    """A change of one sample or frame shows nowhere beyond the context, in the network itself."""
    network = Dac(weights=TINY)._networks["8kbps"]
    samples = 0.1 * torch.randn(1, 1, 512 * 80, generator=torch.Generator().manual_seed(1))
    changed = samples.clone()
    changed[..., 512 * 40] += 1
    with torch.inference_mode():
        latents = network.model.encoder(torch.cat([samples, changed]))
        seen = (latents[0] != latents[1]).any(0).nonzero().flatten() - 40
        assert network._encoder_context >= seen.abs().max() >= 3
        frames = latents[:1].repeat(2, 1, 1)
        frames[1, :, 40] += 1
        audio = network.model.decoder(frames)
    seen = (audio[0, 0] != audio[1, 0]).nonzero().flatten() - 512 * 40
    assert network._decoder_context * 512 >= seen.max() >= 512
    assert network._decoder_context * 512 >= -seen.min() >= 512


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_minutes_in_bounded_memory(tiny: Dac) -> None:
    audio = 0.1 * torch.randn(1, 1, 600 * 44_100, generator=torch.Generator().manual_seed(2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (clip,) = tiny.encode(audio, tiny.nearest_rate(8))
    decoded = tiny.decode([clip])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # Linux counts in kB
    assert decoded.shape == audio.shape
    assert clip.kbps == pytest.approx(7.752, rel=1e-3)
    assert grown < 900  # MB; one layer of the whole clip is 420 MB, the output twice 105


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_full_size() -> None:
    codec = Dac(weights="untrained")
    audio = 0.1 * torch.randn(1, 1, 5 * 44_100, generator=torch.Generator().manual_seed(3))
    parameters = {
        label: sum(tensor.numel() for tensor in network.model.parameters())
        for label, network in codec._networks.items()
    }
    assert parameters["8kbps"] == pytest.approx(76.6e6, rel=0.01)
    (clip,) = codec.encode(audio, codec.nearest_rate(16))
    assert clip.kbps == pytest.approx(15.52, rel=2e-3)
    assert codec.decode([clip]).shape == audio.shape


# ---- random weights ------------------------------------------------------------------------------------


def test_random_weights_show(tiny: Dac) -> None:
    assert tiny.version == "1-untrained"
    assert Dac(weights=TINY).weights_hash == tiny.weights_hash
    assert Dac.unavailable(TINY) is None
    assert Dac.unavailable("untrained") is None
    assert Dac.unavailable("untrained:") is None
    assert "untrained:tiny" in str(Dac.unavailable("untrained:huge"))
    with pytest.raises(UserError, match="unknown random weights"):
        Dac(weights="untrained:huge")


# ---- what is refused -----------------------------------------------------------------------------------


def test_missing_weights_come_with_advice() -> None:
    line = Dac.unavailable()
    assert line is not None
    assert "\n" not in line
    for part in ("evaluate weights fetch dac-8kbps dac-16kbps", "weights_44khz_16kbps_1.0.0.pth"):
        assert part in line
    assert "dac-8kbps" not in str(Dac.unavailable("16kbps"))
    weights.use("dac-8kbps", Path(__file__))
    assert "dac-8kbps" not in str(Dac.unavailable())
    assert "dac:8kbps is here and works alone" in str(Dac.unavailable())
    assert "there is no '/nowhere'" in str(Dac.unavailable("/nowhere"))
    with pytest.raises(UserError, match="not in the cache"):
        Dac()


@pytest.mark.parametrize("how", ["torch", "torch, old format", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path: Path, how: str) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "was run"
    content = {"state_dict": {}, "metadata": {"kwargs": Attack(target)}}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
        torch.load(path, weights_only=False)
    assert target.exists(), "the attack itself does not work"
    target.unlink()
    with pytest.raises(UserError) as caught:
        Dac(weights=str(path))
    assert not target.exists()
    assert "\n" not in str(caught.value)
    assert "no code in it was run" in str(caught.value)


@pytest.fixture
def content(shared: Shared) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(shared("golden/dac/tiny8k.pth"), weights_only=True)
    return loaded


FIRST = "encoder.block.0.weight_v"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c["state_dict"].pop(FIRST), r"encoder\.conv1\.weight is missing"),
        (lambda c: c["state_dict"].pop("encoder.block.0.weight_g"), r"encoder\.conv1\.weight is missing"),
        (lambda c: c["state_dict"].update(more=torch.zeros(1)), "more is unknown"),
        (lambda c: c["state_dict"].update({FIRST: torch.zeros(3, 3, 3)}), "is missing|instead of"),
        (lambda c: c["state_dict"][FIRST].fill_(torch.nan), "not finite"),
        (lambda c: c["state_dict"].update({FIRST: "text"}), "is unknown|is missing"),
        (lambda c: c["metadata"]["kwargs"].pop("encoder_rates"), "its encoder_rates is None"),
        (lambda c: c["metadata"]["kwargs"].update(n_codebooks=10**9), "its n_codebooks is 1000000000"),
        (lambda c: c["metadata"]["kwargs"].update(n_codebooks=True), "its n_codebooks is True"),
        (lambda c: c["metadata"]["kwargs"].update(codebook_size=1000), "are not a DAC model"),
        (lambda c: c["metadata"]["kwargs"].update(sample_rate=24000), "use it with codec 'dac-24khz'"),
        (lambda c: c["metadata"]["kwargs"].update(encoder_dim=16), "instead of"),
        (lambda c: c.pop("metadata"), "not a DAC model of the original release"),
        (lambda c: c.update(state_dict=[1]), "not a DAC model of the original release"),
    ],
)
def test_files_that_are_something_else(
    content: dict[str, Any], tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str
) -> None:
    damage(content)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=message) as caught:
        Dac(weights=str(tmp_path / "other.pth"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["truncated", "empty", "text", "noise", "list"])
def test_files_that_are_nothing(shared: Shared, tmp_path: Path, what: str) -> None:
    path = tmp_path / "other.pth"
    data = shared("golden/dac/tiny8k.pth").read_bytes()
    path.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "empty": b"",
            "text": b"<html>Sign in</html>",
            "noise": np.random.default_rng(0).bytes(1000),
            "list": pickle.dumps([1, 2]),
        }[what]
    )
    with pytest.raises(UserError, match=str(path)) as caught:
        Dac(weights=str(path))
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_clips_are_refused(tiny: Dac, noise: torch.Tensor) -> None:
    (clip,) = tiny.encode(noise, tiny.rates(2)[0])
    with pytest.raises(UserError, match="was encoded with"):
        clip.side_info["weights"] = "other"
        tiny.decode([clip])
    (clip,) = tiny.encode(noise, tiny.rates(2)[0])
    clip.payload = clip.payload[:-1]
    with pytest.raises(UserError, match="damaged"):
        tiny.decode([clip])
    for settings in ({"num_codebooks": 3}, {"model": "8kbps"}, {"model": "8kbps", "num_codebooks": 10}):
        with pytest.raises(UserError, match="nearest_rate"):
            tiny.encode(noise, Rate(8, settings))
