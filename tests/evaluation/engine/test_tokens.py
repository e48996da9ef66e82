"""`evaluate tokenize`: the codes are the codec's, whatever interrupts it, and load as the guide says."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from known import RATE, FragileCodec, LayersCodec, StepCodec, register_codecs
from pages import blocks
from safetensors import safe_open
from safetensors.numpy import load_file, save
from standin_ray import Death, StandInRay

from baselines.codec import Encoded, Rate
from evaluation.engine import cluster, tokens
from evaluation.engine.request import Request, parse_request
from evaluation.engine.token_batches import Codes
from evaluation.records import Settings
from qincodec import audio
from qincodec.core.console import run_command
from qincodec.core.errors import UserError


@pytest.fixture(autouse=True)
def _codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SHARD_CLIPS", 3)
    register_codecs(monkeypatch, LayersCodec, StepCodec, FragileCodec)


def tokenize(
    data: Path, out: Path, codec: str = "layers", kbps: float = 6 * RATE / 1000, **typed: Any
) -> Any:
    settings = Settings(chunk_s=30.0, chunks="all", match="nominal")
    request = Request(str(data), [codec], [kbps], settings=settings, **{"batch_size": 2, **typed})
    return tokens.tokenize(parse_request(request), out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tokens_are_the_codes_and_load_as_the_guide_says(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tokenize(clip_folder, tmp_path / "tokens")
    assert found.clips == 7 and found.failed == 0 and found.rate.settings == {"num_codebooks": 6}
    (loading,) = (block for block in blocks("docs/how-to/tokens.md", "python") if "load_file" in block)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(loading, names)
    index = names["index"]
    assert index.id.tolist() == ["a", "b", "c", "d", "f", "g", "sub/e"]
    assert index["shard"].nunique() == 3 and index["error"].isna().all()
    codec = LayersCodec()
    for _, row in index.iterrows():
        given, _ = audio.read(clip_folder / f"{row['id']}.wav")
        (direct,) = codec.encode(torch.from_numpy(given)[None], found.rate)
        codes = names["load_file"](f"tokens/{row['shard']}")[row["id"]]
        assert codes.dtype == np.int16 and codes.shape == (6, row["frames"]) == (
            row["codebooks"],
            given.shape[1],
        )
        np.testing.assert_array_equal(codes, direct.codes)
        torch.testing.assert_close(
            codec.decode([codec._of(codes, given.shape[1])]), codec.decode([direct]), rtol=0, atol=0
        )
    np.testing.assert_array_equal(names["codes"], names["load_file"]("tokens/shard-00000.safetensors")["a"])
    said = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
    assert said["result"]["codebook_sizes"] == [2] * 6
    assert said["result"]["tokens"] == found.tokens == (index["frames"] * index["codebooks"]).sum()


def test_an_interrupted_run_ends_in_the_same_bytes(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(clip_folder, tmp_path / "whole", workers=1)
    calls: list[int] = []
    encode = LayersCodec.encode

    def counted(self: LayersCodec, given: torch.Tensor, rate: Rate) -> list[Encoded]:
        calls.append(len(given))
        if len(calls) in (3, 6):
            raise KeyboardInterrupt
        return encode(self, given, rate)

    monkeypatch.setattr(LayersCodec, "encode", counted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tokenize(clip_folder, tmp_path / "cut", workers=1)
    assert not (tmp_path / "cut" / "index.parquet").exists()
    tokenize(clip_folder, tmp_path / "cut", workers=3)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    # A second of silence is tried each time; of the data only the two cut batches were encoded twice.
    assert sum(calls) - 3 <= 7 + 2 * 2
    calls.clear()
    tokenize(clip_folder, tmp_path / "cut")
    assert calls == [1] and contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_cluster_ends_in_the_same_bytes(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is a stand-in. A clip that ends its workers fails alone, and is tried again."""
    monkeypatch.setattr(cluster, "_import_ray", lambda: StandInRay(2))
    monkeypatch.setattr(cluster, "LOOK_S", 0.0)
    monkeypatch.setenv("QINCODEC_OFFLINE", "1")  # workers set it
    tokenize(clip_folder, tmp_path / "whole", workers=1)
    tokenize(clip_folder, tmp_path / "one", cluster="local")
    assert contents(tmp_path / "one") == contents(tmp_path / "whole")

    deadly, _ = audio.read(clip_folder / "c.wav")
    with monkeypatch.context() as patched:
        encode = LayersCodec.encode_clip

        def encode_clip(self: LayersCodec, given: np.ndarray, rate: Rate) -> Encoded:
            if np.array_equal(given, deadly):
                raise Death
            return encode(self, given, rate)

        patched.setattr(LayersCodec, "encode_clip", encode_clip)
        assert tokenize(clip_folder, tmp_path / "two", cluster="local").failed == 1
    index = pd.read_parquet(tmp_path / "two" / "index.parquet").set_index("id")
    assert index["error"].dropna().index.tolist() == ["c"] and "ended one after" in index["error"]["c"]
    tokenize(clip_folder, tmp_path / "two", cluster="local")
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


def test_what_fails_is_a_row_and_tried_again(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tokenize(clip_folder, tmp_path / "tokens", "fragile", 8)
    index = pd.read_parquet(tmp_path / "tokens" / "index.parquet").set_index("id")
    assert 0 < found.failed == index["error"].notna().sum() < 7
    assert index["error"].dropna().str.contains("too loud for this codec").all()
    assert (index["frames"].eq(0) == index["error"].notna()).all()
    monkeypatch.setattr(FragileCodec, "fails_above", 9.9)
    assert tokenize(clip_folder, tmp_path / "tokens", "fragile", 8).failed == 0
    tokenize(clip_folder, tmp_path / "whole", "fragile", 8)
    assert contents(tmp_path / "tokens") == contents(tmp_path / "whole")


def test_the_name_that_safetensors_keeps_is_an_error_of_its_clip(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "__metadata__"):
        (tmp_path / "data" / f"{name}.wav").parent.mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.wav").write_bytes((clip_folder / "a.wav").read_bytes())
    for _ in range(2):
        found = tokenize(tmp_path / "data", tmp_path / "tokens", "steps", 8)
        assert (found.clips, found.failed) == (1, 1)
    index = pd.read_parquet(tmp_path / "tokens" / "index.parquet").set_index("id")
    assert "rename the file" in index["error"]["__metadata__"]


@pytest.mark.parametrize(("codec", "code"), [("steps", None), ("fragile", 3)])
def test_the_command_says_what_it_wrote(
    codec: str, code: int | None, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from evaluation.cli.evaluate import app

    out = tmp_path / "tokens"
    typed = [
        "tokenize",
        str(clip_folder),
        "--codec",
        codec,
        "--kbps",
        "8",
        "--channels",
        "2",
        "--out",
        str(out),
    ]
    with pytest.raises(SystemExit) as end:
        run_command(app, typed, "evaluate")
    assert end.value.code == (code or 0)
    index = pd.read_parquet(out / "index.parquet")
    good = index[index["error"].isna()]
    assert set(good["codebooks"]) == {2}  # a row of codes for each channel
    said = capsys.readouterr().out
    tokens_, seconds = (good["frames"] * 2).sum(), good["duration_s"].sum()
    assert f"{tokens_} tokens of {len(good)} clips, {seconds:.1f} s" in said and f"{codec} at 8 kbps" in said
    assert (f"{7 - len(good)} clips failed" in said) == (code == 3)


def test_shards_that_were_damaged_are_done_again(clip_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    tokenize(clip_folder, out, "steps", 8)
    whole = contents(out)
    first, second = (out / f"shard-0000{number}.safetensors" for number in (0, 1))
    rows = json.loads(safe_open(first, "numpy").metadata()["clips"])
    arrays = load_file(first)
    short = {name: array[..., 1:] for name, array in arrays.items()}
    for given, said in (
        ({name: arrays[name] for name in list(arrays)[1:]}, rows),
        (arrays | {"stranger": arrays["a"]}, rows),
        (short, rows),
        (arrays, [1, 2, 3]),
        (arrays, [{}] * 3),
        (arrays, {"a": 1, "b": 2, "c": 3}),
        ({}, [{"error": "x"}] * 3),
        (arrays, [row | {"frames": 5} for row in rows]),
    ):
        first.write_bytes(save(given, {"clips": json.dumps(said)}))
        tokenize(clip_folder, out, "steps", 8)
        assert contents(out) == whole
    second.write_bytes(first.read_bytes())
    (out / "shard-00007.safetensors").write_bytes(first.read_bytes())
    tokenize(clip_folder, out, "steps", 8)
    assert contents(out) == whole
    (out / "tokens.json").write_text("[]")
    with pytest.raises(UserError, match="it is not a JSON object; choose another --out"):
        tokenize(clip_folder, out, "steps", 8)


def test_refusals(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="codec 'opus' has no codebooks"):
        tokenize(clip_folder, tmp_path / "none", "opus", 16)
    assert not (tmp_path / "none").exists()
    tokenize(clip_folder, tmp_path / "tokens", "steps", 8)
    with pytest.raises(UserError, match=r"holds other tokens: .*kbps was 8\.0, now 12\.0"):
        tokenize(clip_folder, tmp_path / "tokens", "steps", 12)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(next(clip_folder.glob("*.wav")), other)
    with pytest.raises(UserError) as refused:
        tokenize(other, tmp_path / "tokens", "layers")
    assert str(refused.value) == (
        f"{tmp_path / 'tokens'} holds other tokens: codec was 'steps', now 'layers'; kbps was 8.0, now "
        f"{6 * RATE / 1000}; data was '{clip_folder.name}', now 'other'; choose another --out, or repeat "
        "the old options to continue"
    )
    description = tmp_path / "tokens" / "tokens.json"
    description.write_text(description.read_text().replace('"version": "1"', '"version": "0"'))
    with pytest.raises(UserError, match=r"tokens: codec steps has changed \(version\); choose another --out"):
        tokenize(clip_folder, tmp_path / "tokens", "steps", 8)
    with pytest.raises(UserError, match="not empty and does not hold tokens"):
        tokenize(clip_folder, clip_folder)


def test_one_process_writes_a_folder(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second: list[str] = []
    all_shards = tokens._Tokenizer.all_shards

    def meanwhile(self: tokens._Tokenizer, *given: Any) -> Any:
        monkeypatch.setattr(tokens._Tokenizer, "all_shards", all_shards)
        with pytest.raises(UserError, match="another evaluation is writing to") as refused:
            tokenize(clip_folder, tmp_path / "tokens", "steps", 8)
        second.append(str(refused.value))
        return all_shards(self, *given)

    monkeypatch.setattr(tokens._Tokenizer, "all_shards", meanwhile)
    assert tokenize(clip_folder, tmp_path / "tokens", "steps", 8).clips == 7 and len(second) == 1


def test_codebooks_of_different_frame_counts_are_one_behind_the_other() -> None:
    rows = (np.array([1, 2]), np.array([3, 4, 5, 40000]))
    encoded = Encoded(b"", RATE, 1, 100, codes=rows, codebook_sizes=(4, 65536))  # type: ignore[arg-type]
    found = Codes.of(LayersCodec(), encoded)
    assert found.array.dtype == np.int32 and found.frames == (2, 4)
    np.testing.assert_array_equal(found.array, [1, 2, 3, 4, 5, 40000])


_KILLED = """
import os, signal
from pathlib import Path
from baselines.codec import ClipCodec, Encoded, Rate

class Killed(ClipCodec):
    name, version, sample_rate = "killed", "1", 44100
    def rates(self, channels=1):
        return [Rate(8.0)]
    def encode_clip(self, audio, rate):
        count = Path("{count}")
        count.write_text(count.read_text() + ".")
        if len(count.read_text()) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        codes = (audio * 100).astype("int32") + 128
        return Encoded(codes.tobytes(), 44100, 1, audio.shape[1], codes=codes, codebook_sizes=(256,))
    def decode_clip(self, encoded):
        raise AssertionError
"""


@pytest.mark.long
def test_a_killed_process_is_gone_on_with(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "count").write_text("")
    (tmp_path / "codec.py").write_text(_KILLED.format(count=tmp_path / "count"))

    def run(out: str) -> int:
        typed = f"{clip_folder} --codec ./codec.py:Killed --kbps 8 --batch-size 1 --workers 1 --out {out}"
        command = [sys.executable, "-m", "evaluation", "tokenize", *typed.split()]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode

    assert run("tokens") == -signal.SIGKILL
    assert run("tokens") == 0 == run("whole")
    assert len((tmp_path / "count").read_text()) == (1 + 3) + (1 + 5) + (1 + 7)
    assert contents(tmp_path / "tokens") == contents(tmp_path / "whole")


@pytest.mark.long
def test_qincodec_decodes_its_tokens_as_the_guide_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baselines.registry import CODECS

    found = tokenize(Path("demo"), tmp_path / "tokens", "qincodec-fast", 4)
    loading, decoding = (block for block in blocks("docs/how-to/tokens.md", "python") if "codes" in block)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(loading + decoding, names)
    codec = CODECS.load("qincodec-fast")()
    clip = Path(__file__).parents[3] / "evaluation" / "datasets" / "demo" / f"{names['index'].id[0]}.flac"
    given, _ = audio.read(clip)
    direct = codec.decode(codec.encode(torch.from_numpy(given)[None], found.rate))
    torch.testing.assert_close(names["audio"][0, :, : given.shape[1]], direct[0], rtol=0, atol=1e-6)
