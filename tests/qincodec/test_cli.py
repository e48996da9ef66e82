"""The command, run as a user would: files, pipes, mistakes; and the streaming of files behind it."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from qincodec import audio, cli
from qincodec import transcode as files
from qincodec.bitstream import loads
from qincodec.code_tables import CodeTables
from qincodec.codec import Qincodec, load

torch.set_num_threads(1)
TINY = ["--model", "untrained:tiny"]


@pytest.fixture(scope="module")
def tiny() -> Qincodec:
    return load("untrained:tiny")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs ``qincodec ARGUMENTS`` -> (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qincodec", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capfd.readouterr())

    return run


def noise(path: Path, seconds: float, sample_rate: int = 44_100, channels: int = 1) -> np.ndarray:
    samples = round(seconds * sample_rate)
    values = 0.2 * np.random.default_rng(0).standard_normal((channels, samples)).astype(np.float32)
    audio.write(path, values, sample_rate)
    return values


def command(*arguments: object) -> list[str]:
    """The command line of another process."""
    return [sys.executable, "-c", "from qincodec.cli import main; main()", *map(str, arguments)]


# ---- encode and decode ---------------------------------------------------------------------------------


def test_files_go_there_and_back(run, tmp_path: Path, tiny: Qincodec) -> None:
    values = noise(tmp_path / "in.wav", 1.0, channels=2)
    code, out, err = run("encode", tmp_path / "in.wav", "-o", tmp_path / "a.qnc", "--kbps", 8, *TINY)
    assert (code, out) == (0, "")
    assert "2 channels of 3 + 2 codebooks" in err
    assert "8.66 kbps" in err  # 173 frames of 50 bits in a second, in whole bytes
    header, codes = loads((tmp_path / "a.qnc").read_bytes())
    expected = tiny.encode(torch.from_numpy(values)[None], num_codebooks=3)
    assert np.array_equal(codes, expected[0].numpy())
    assert (header.num_samples, header.source_rate) == (44_100, 44_100)
    assert run("decode", tmp_path / "a.qnc", "-o", tmp_path / "out.wav", *TINY)[0] == 0
    got, rate = audio.read(tmp_path / "out.wav")
    assert rate == 44_100
    np.testing.assert_allclose(got, tiny.decode(expected, 44_100)[0].numpy(), atol=1e-6)
    first = (tmp_path / "out.wav").read_bytes()
    assert run("decode", tmp_path / "a.qnc", "-o", tmp_path / "out.wav", "--force", *TINY)[0] == 0
    assert (tmp_path / "out.wav").read_bytes() == first  # nor does the time of day get in
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.qnc", "in.wav", "out.wav"]


def test_stereo_files(run, tmp_path: Path, tiny: Qincodec) -> None:
    """One of before, of left and right each by itself; a source on the left; the search for a bitrate."""
    data = Path(__file__).parent / "data"
    assert run("decode", data / "left_right.qnc", "-o", tmp_path / "old.wav", *TINY)[0] == 0
    np.testing.assert_allclose(
        audio.read(tmp_path / "old.wav")[0], np.load(data / "left_right.npy"), atol=1e-6
    )
    values = noise(tmp_path / "in.wav", 1.0, channels=2)
    audio.write(tmp_path / "left.wav", values * np.float32([[1], [0]]), 44_100)
    _, _, err = run("encode", tmp_path / "left.wav", "-o", tmp_path / "left.qnc", "--kbps", 16, *TINY)
    assert "10.38 kbps (2 channels of 6 + 0 codebooks)" in err  # 173 frames of 60 bits in a second
    _, out, _ = run("info", tmp_path / "left.qnc")
    assert "6 + 0 of mid and side, the side predicted by 8/8 of the mid" in out
    run("decode", tmp_path / "left.qnc", "-o", tmp_path / "back.wav", *TINY)
    left, right = audio.read(tmp_path / "back.wav")[0]
    assert left.any() and not right.any()
    exact = files.encode_to_rate(tiny, tmp_path / "in.wav", 20)
    assert exact == files.encode_file(tiny, tmp_path / "in.wav", (7, 5))  # 12 codebooks of 1.72 kbps
    assert abs(exact[0].kbps(len(exact[1])) / 20 - 1) < 0.05


@pytest.mark.parametrize("rate", [8_000, 32_000, 48_000, 96_000])
def test_other_sample_rates_are_noted_and_restored(run, tmp_path: Path, rate: int) -> None:
    samples = rate // 2 + 7
    noise(tmp_path / "in.wav", samples / rate, rate)
    _, _, err = run("encode", tmp_path / "in.wav", "-o", tmp_path / "a.qnc", *TINY)
    assert f"from {rate} Hz" in err
    _, _, err = run("decode", tmp_path / "a.qnc", "-o", tmp_path / "model.wav", *TINY)
    assert f"was {rate} Hz; --source-rate restores it" in err
    run("decode", tmp_path / "a.qnc", "-o", tmp_path / "source.wav", "--source-rate", *TINY)
    there, back = audio.info(tmp_path / "model.wav"), audio.info(tmp_path / "source.wav")
    assert (there.sample_rate, there.num_samples) == (44_100, audio.resampled_length(samples, rate, 44_100))
    assert (back.sample_rate, back.num_samples) == (rate, samples)


def test_a_resampled_file_has_the_codes_of_resampled_audio(tmp_path: Path, tiny: Qincodec) -> None:
    values = noise(tmp_path / "in.wav", 25.3, 48_000, 2)  # three blocks of reading
    header, data = files.encode_file(tiny, tmp_path / "in.wav", 4)
    at_once = audio.resample(values, 48_000, 44_100)
    assert header.num_samples == at_once.shape[1]
    expected = tiny.encode(torch.from_numpy(at_once)[None], num_codebooks=4)[0].numpy()
    assert (loads(data)[1] == expected).mean() > 0.999


@pytest.mark.parametrize("suffix", [".wav", ".ogg"])
def test_reading_in_parts_changes_nothing(
    tmp_path: Path, tiny: Qincodec, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"in{suffix}"
    soundfile.write(path, 0.2 * np.random.default_rng(0).standard_normal((3 * 32_000 + 5, 2)), 32_000)
    whole = files.encode_file(tiny, path, 3)
    monkeypatch.setattr(files, "_PART_S", 2, raising=False)
    monkeypatch.setattr(files, "_BLOCK_S", 1)
    assert files.encode_file(tiny, path, 3) == whole


@pytest.mark.parametrize(("name", "subtype"), [("o.wav", "pcm16"), ("o.wav", "pcm24"), ("o.flac", "pcm16")])
def test_pcm_is_cut_with_a_warning(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, subtype: str
) -> None:
    noise(tmp_path / "in.wav", 0.1)
    run("encode", tmp_path / "in.wav", "-o", tmp_path / "a.qnc", *TINY)
    loud = torch.linspace(-2, 2, 18 * 256)[None]
    monkeypatch.setattr(Qincodec, "decode_blocks", lambda self, codes, _: iter(loud.split(1000, 1)))
    _, _, err = run("decode", tmp_path / "a.qnc", "-o", tmp_path / name, "--subtype", subtype, *TINY)
    expected = loud[0, :4410].numpy()
    assert f"warning: {tmp_path / name}: {(abs(expected) > 1).sum()} samples exceeded full scale" in err
    assert "+6.02 dBFS" in err
    got = soundfile.read(tmp_path / name, dtype="float64")[0]
    step = 2.0 ** (1 - int(subtype[3:]))
    np.testing.assert_allclose(got, expected.clip(-1, 1 - step), atol=0.51 * step)
    _, _, err = run("decode", tmp_path / "a.qnc", "-o", tmp_path / "float.wav", *TINY)
    assert "warning:" not in err
    assert np.array_equal(audio.read(tmp_path / "float.wav")[0][0], expected)


def test_pipes(tmp_path: Path) -> None:
    values = noise(tmp_path / "in.wav", 0.5)
    with (tmp_path / "in.wav").open("rb") as source, (tmp_path / "out.wav").open("wb") as target:
        encoder = subprocess.Popen(
            command("encode", "-", "-o", "-", *TINY), stdin=source, stdout=subprocess.PIPE
        )
        decoder = subprocess.Popen(
            command("decode", "-", "-o", "-", *TINY), stdin=encoder.stdout, stdout=target
        )
        assert decoder.wait() == encoder.wait() == 0
    assert encoder.stdout is not None
    encoder.stdout.close()
    assert audio.read(tmp_path / "out.wav")[0].shape == values.shape


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        (["encode", "-", "-o", "-"], b"", "'stdin' is empty"),
        (["encode", "-", "-o", "-"], b"rubbish", "'stdin' is not audio"),
        (["decode", "-", "-o", "-"], b"rubbish", "not a .qnc file"),
        (["decode", "-", "-o", "-"], b"", "not a .qnc file"),
        (["info", "-"], b"QNC\x1a", "truncated"),
    ],
)
def test_rubbish_through_pipes(
    run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], data: bytes, message: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert message in mistake(run, *arguments, *(TINY if arguments[0] != "info" else []))


def test_many_files_and_one_that_fails(run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "b"):
        noise(tmp_path / f"{name}.wav", 0.05)
    (tmp_path / "broken.wav").write_bytes(b"rubbish")
    inputs = [tmp_path / f"{name}.wav" for name in ("a", "broken", "b")]
    code, _, err = run("encode", *inputs, "-o", out, *TINY)
    assert code == 3
    assert "1 of 3 files failed" in err
    assert sum("broken.wav" in line for line in err.splitlines()) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.qnc", "b.qnc"]
    assert run("decode", out / "a.qnc", out / "b.qnc", "-o", out, *TINY)[0] == 0
    assert (out / "a.wav").exists()


# ---- mistakes ------------------------------------------------------------------------------------------


def mistake(run, *arguments: object) -> str:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("qincodec: ")
    assert err.count("\n") == 1, err
    return err


def test_mistakes_are_one_line(run, tmp_path: Path) -> None:
    wav, qnc, out = tmp_path / "in.wav", tmp_path / "a.qnc", tmp_path / "out.wav"
    noise(wav, 0.05)
    run("encode", wav, "-o", qnc, *TINY)
    assert "exists: --force overwrites it" in mistake(run, "encode", wav, "-o", qnc, *TINY)
    assert "was encoded with model" in mistake(run, "decode", qnc, "-o", out)
    assert "not a model" in mistake(run, "decode", qnc, "-o", out, "--model", tmp_path / "none")
    assert "was encoded with model" in mistake(run, "decode", qnc, "-o", out, "--model", "untrained:small")
    assert "not a .qnc file" in mistake(run, "decode", wav, "-o", out, *TINY)
    assert "not audio" in mistake(run, "encode", qnc, "-o", tmp_path / "b.qnc", *TINY)
    assert "no such audio file" in mistake(run, "encode", tmp_path / "x.wav", "-o", tmp_path / "b.qnc", *TINY)
    assert "cannot read" in mistake(run, "decode", tmp_path / "x.qnc", "-o", out, *TINY)
    assert "1.7 to 24.1 kbps" in mistake(run, "encode", wav, "-o", out, "--kbps", 64, *TINY)
    assert ".wav or .flac" in mistake(run, "decode", qnc, "-o", tmp_path / "o.mp3", *TINY)
    assert "FLAC" in mistake(run, "decode", qnc, "-o", tmp_path / "o.flac", "--subtype", "float32", *TINY)
    assert "float32, pcm16 or pcm24" in mistake(run, "decode", qnc, "-o", out, "--subtype", "pcm8", *TINY)
    assert "no folder" in mistake(run, "encode", wav, "-o", tmp_path / "x" / "y.qnc", *TINY)
    assert "need a folder" in mistake(run, "encode", wav, qnc, "-o", out, *TINY)
    assert "two inputs" in mistake(run, "encode", wav, wav, "-o", tmp_path, *TINY)
    assert "stdout" in mistake(run, "encode", wav, qnc, "-o", "-", *TINY)
    assert "stdin" in mistake(run, "encode", "-", "-o", tmp_path, *TINY)
    assert "cannot be the output" in mistake(run, "encode", wav, "-o", wav, "--force", *TINY)
    assert "unknown device" in mistake(run, "encode", wav, "-o", out, "--device", "toaster", *TINY)
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.qnc", "in.wav"]


def test_truncated_files_are_named(run, tmp_path: Path) -> None:
    noise(tmp_path / "in.wav", 0.5)
    run("encode", tmp_path / "in.wav", "-o", tmp_path / "a.qnc", *TINY)
    (tmp_path / "cut.qnc").write_bytes((tmp_path / "a.qnc").read_bytes()[:-30])
    err = mistake(run, "decode", tmp_path / "cut.qnc", "-o", tmp_path / "o.wav", *TINY)
    assert "cut.qnc" in err
    assert "truncated" in err


# ---- info ----------------------------------------------------------------------------------------------


def test_wider_searches_err_less_and_all_are_decoded(run, tmp_path: Path) -> None:
    """With the shipped model. What the file holds is decoded to is not asked of the search."""
    values = noise(tmp_path / "in.wav", 0.5)
    model, errors = load("small"), {}
    latents = model.encode_latents(torch.from_numpy(values)[None])
    for search in ("fast", "default", "best"):
        path = tmp_path / f"{search}.qnc"
        assert run("encode", tmp_path / "in.wav", "-o", path, "--kbps", 4, "--search", search)[0] == 0
        header, codes = loads(path.read_bytes(), model.tables)
        assert header.model == model.model_id
        assert model.quantizer is not None
        decoded = model.quantizer.decode(torch.from_numpy(codes[0].T.astype(np.int64)))
        errors[search] = float((decoded - latents[0, 0]).square().mean())
    assert errors["fast"] > errors["default"] > errors["best"]
    code, _, stderr = run("encode", tmp_path / "in.wav", "-o", tmp_path / "no.qnc", "--search", "slow")
    assert (code, stderr.strip()) == (2, "qincodec: search must be fast, default or best; got 'slow'")
    code, _, stderr = run("encode", tmp_path / "in.wav", "-o", tmp_path / "no.qnc", "--search", "best", *TINY)
    assert code == 2
    assert "quantizer 'rvq' has no beam search, so none that is 'best'" in stderr


def test_info_of_a_file_and_of_a_model(run, tmp_path: Path) -> None:
    noise(tmp_path / "in.wav", 1.0, 48_000)
    run("encode", tmp_path / "in.wav", "-o", tmp_path / "a.qnc", *TINY)
    code, out, err = run("info", tmp_path / "a.qnc")
    assert (code, err) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    lines = {name.strip(): value.strip() for name, value in lines.items()}
    assert lines["source"] == "48000 Hz (48000 samples)"
    assert lines["codebooks"] == "9 per channel, 1024 entries"
    assert lines["bitrate"].startswith(
        "15.576 kbps in total (1947 bytes of packed"
    )  # 173 frames of 90 bits in a second
    assert lines["overhead"].startswith("88 bytes")
    code, out, _ = run("info", "untrained:tiny")
    assert code == 0
    assert "random: never trained" in out
    assert "3584 samples (81.3 ms)" in out  # 14 hops of 256
    assert lines["model"] in out


def test_entropy_coded_files(run, tmp_path: Path) -> None:
    """A model with code tables: the same audio as without, from a shorter file, which needs that model."""
    noise(tmp_path / "in.wav", 2.0, 44_100, 2)
    packing = load("untrained:tiny")
    codes = packing.encode(torch.from_numpy(audio.read(tmp_path / "in.wav")[0])[None])
    assert packing.quantizer is not None
    sizes = packing.quantizer.codebook_sizes
    tables = CodeTables.count(codes.permute(0, 1, 3, 2).flatten(0, 2).numpy(), sizes)
    Qincodec(packing.autoencoder, packing.quantizer, tables=tables).save(tmp_path / "model")
    model = ["--model", tmp_path / "model"]
    n = packing.codebooks_for(16, 2)
    assert isinstance(n, tuple)
    kbps = sum(map(tables.bits_per_frame, n)) * 172.265625 / 1000
    run("encode", tmp_path / "in.wav", "-o", tmp_path / "packed.qnc", "--kbps", "16", *TINY)
    code, _, err = run("encode", tmp_path / "in.wav", "-o", tmp_path / "coded.qnc", "--kbps", kbps, *model)
    assert code == 0
    assert f"{n[0]} + {n[1]} codebooks" in err
    packed, coded = ((tmp_path / name).read_bytes() for name in ("packed.qnc", "coded.qnc"))
    assert len(coded) < 0.97 * len(packed)
    code, out, _ = run("info", tmp_path / "coded.qnc")
    assert code == 0
    payload = len(coded) - (44 + 4 * n[0] + 3 + 4) - 2 * 8  # two blocks
    assert f"({payload} bytes of entropy-coded codes)" in out
    assert f"{payload * 8 / 2 / 1000:.3f} kbps" in out
    run("decode", tmp_path / "packed.qnc", "-o", tmp_path / "packed.wav", *TINY)
    code, _, _ = run("decode", tmp_path / "coded.qnc", "-o", tmp_path / "coded.wav", *model)
    assert code == 0
    np.testing.assert_array_equal(
        audio.read(tmp_path / "coded.wav")[0], audio.read(tmp_path / "packed.wav")[0]
    )
    err = mistake(run, "decode", tmp_path / "coded.qnc", "-o", tmp_path / "o.wav", *TINY)
    assert "give the model it was encoded with" in err
    code, out, _ = run("info", tmp_path / "model")
    assert "entropy-coded" in out


def test_exact_is_the_number_of_codebooks_that_comes_nearest(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all numbers, tried one by one, where tables were counted on louder audio than is coded.

    The file is encoded once, since a residual quantizer's codes of a lower rate are a prefix.
    """
    loud = 0.2 * torch.randn(1, 1, 88_200, generator=torch.Generator().manual_seed(0))
    soundfile.write(tmp_path / "in.wav", 0.001 * loud[0, 0, :22_050].numpy(), 44_100, subtype="FLOAT")
    packing = load("untrained:tiny")
    assert packing.quantizer is not None
    codes = packing.encode(loud).permute(0, 1, 3, 2).flatten(0, 2).numpy()
    tables = CodeTables.count(codes, packing.quantizer.codebook_sizes)
    model = Qincodec(packing.autoencoder, packing.quantizer, tables=tables)
    model.save(tmp_path / "model")
    made, whole = {}, {}
    for number, _ in model.rates():
        header, data = files.encode_file(model, tmp_path / "in.wav", number)
        made[number] = header.kbps(len(data))
        whole[number] = data
    encoded: list[int | None] = []
    encode_blocks = Qincodec.encode_blocks

    def counted(model: Qincodec, blocks: Any, num_codebooks: int | None = None, prediction: int = 0) -> Any:
        encoded.append(num_codebooks)
        return encode_blocks(model, blocks, num_codebooks, prediction)

    monkeypatch.setattr(Qincodec, "encode_blocks", counted)
    for kbps in (12, 17, 23):
        options = ["--kbps", kbps, "--exact", "--model", tmp_path / "model"]
        code, _, err = run("encode", tmp_path / "in.wav", "-o", tmp_path / f"{kbps}.qnc", *options)
        best = min(made, key=lambda number: abs(np.log(made[number] / kbps)))
        assert code == 0 and f"of {best} codebooks" in err and f"{made[best]:.2f} kbps" in err
        assert (f"no number of codebooks comes nearer to {kbps} kbps" in err) == (
            abs(made[best] / kbps - 1) > 0.03
        )
        assert (best == model.codebooks_for(kbps)) == (kbps == 23)  # beyond what all codebooks give
        assert (tmp_path / f"{kbps}.qnc").read_bytes() == whole[best]
        assert encoded == [model.rates()[-1][0]]
        encoded.clear()


# ---- the command itself --------------------------------------------------------------------------------


def test_help_is_quick_and_loads_no_torch() -> None:
    script = (
        "import sys; sys.argv = ['qincodec', 'encode', '--help']\n"
        "from qincodec.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: code = stop.code\n"
        "assert not code and 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor; 0.3 s where nothing else runs.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_interrupts_exit_130_and_leave_no_rests(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(tmp_path / "in.wav", 1.0)
    run("encode", tmp_path / "in.wav", "-o", tmp_path / "a.qnc", *TINY)

    def decode_blocks(self: Qincodec, codes: torch.Tensor, _: int | None) -> Iterator[torch.Tensor]:
        yield torch.zeros(1, 1000)
        raise KeyboardInterrupt

    monkeypatch.setattr(Qincodec, "decode_blocks", decode_blocks)
    code, _, err = run("decode", tmp_path / "a.qnc", "-o", tmp_path / "out.wav", *TINY)
    assert (code, err.strip()) == (130, "qincodec: interrupted; 0 of 1 files are written")
    monkeypatch.setattr("qincodec.codec.load", interrupted)
    assert run("decode", tmp_path / "a.qnc", "-o", tmp_path / "out.wav", *TINY)[0] == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.qnc", "in.wav"]


# ---- memory --------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from qincodec.codec import load
from qincodec.bitstream import loads
from qincodec.transcode import decode_file, encode_file
codec = load("untrained:small")
header, data = encode_file(codec, sys.argv[1], 2)
decode_file(codec, *loads(data), sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mb(tmp_path: Path, seconds: int) -> float:
    path = tmp_path / f"{seconds}.wav"
    with soundfile.SoundFile(path, "w", 44_100, 1, "PCM_16") as sound:
        block = (2000 * np.random.default_rng(0).standard_normal(441_000)).astype(np.int16)
        for _ in range(seconds // 10):
            sound.write(block)
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "out.wav")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(output) / 1024 if sys.platform != "darwin" else int(output) / 2**20


@pytest.mark.long
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    short, long = peak_mb(tmp_path, 300), peak_mb(tmp_path, 1500)
    # 100 MB of slack; a chunk's activations kept by each of the 60 chunks would be 1 GB.
    assert long - short < 100, (short, long)
