"""Weights files that declare or unpack to any size: one line, and the memory of a small process."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from baselines.dac import Dac
from baselines.encodec import Encodec
from baselines.mimi import Mimi
from evaluation.embeddings.openl3_network import read_weights
from qincodec.core.errors import UserError

KWARGS = {
    "sample_rate": 44100,
    "encoder_dim": 64,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1536,
    "decoder_rates": [8, 8, 4, 2],
    "n_codebooks": 9,
    "codebook_size": 1024,
    "codebook_dim": 8,
    "latent_dim": 64,
}


def dac_file(path: Path, tensors: Any = None, **changed: Any) -> Path:
    content = {"metadata": {"kwargs": {**KWARGS, **changed}}, "state_dict": tensors or {"a": torch.zeros(3)}}
    torch.save(content, path)
    return path


def expanded(path: Path) -> Path:
    """Four bytes that say they are a terabyte."""
    huge = torch.zeros(1).expand(2**38)
    return dac_file(path, {"encoder.block.0.weight_v": huge[None], "encoder.block.0.weight_g": torch.ones(1)})


def packed(path: Path) -> Path:
    """The zeros of a tensor, packed: 40 KB that become 40 MB, and as well 40 TB."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(10_000_000)}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in archive.namelist():
            target.writestr(name, archive.read(name))
    return path


@pytest.mark.parametrize(
    "make",
    [
        expanded,
        packed,
        lambda path: dac_file(path, encoder_dim=1 << 18),
        lambda path: dac_file(path, n_codebooks=1 << 18),
        lambda path: dac_file(path, encoder_rates=[2] * 100_000),
        lambda path: dac_file(path, codebook_size=1 << 18, codebook_dim=1 << 18),
    ],
    ids=["expanded", "packed", "wide", "codebooks", "rates", "codebook"],
)
def test_a_dac_file_of_any_size_is_refused(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Dac(weights=str(make(tmp_path / "weights.pth")))
    assert "\n" not in str(caught.value) and "weights.pth" in str(caught.value)


def test_an_encodec_file_of_any_size_is_refused(tmp_path: Path) -> None:
    tensors = {
        "encoder.layers.0.conv.weight": torch.zeros(2**20, 2, 0),
        "quantizer.layers.0.codebook.embed": torch.zeros(0, 2**20),
        **{f"encoder.layers.{n}.conv.weight": torch.zeros(0, 0, 4) for n in (3, 6, 9, 12)},
    }
    torch.save(tensors, tmp_path / "weights.th")
    with pytest.raises(UserError, match=r"weights\.th"):
        Encodec(weights=str(tmp_path / "weights.th"))


@pytest.mark.parametrize("codec", [Dac, Encodec, Mimi])
@pytest.mark.parametrize("value", [10**9, 2**19, "x", None, -5, [10**6] * 50])
def test_a_configuration_of_any_size_is_refused(codec: type, value: Any, tmp_path: Path) -> None:
    label = next(iter(codec.released))  # type: ignore[attr-defined]
    folder = tmp_path / "model"
    codec.untrained(label, "tiny").save_pretrained(folder)  # type: ignore[attr-defined]
    config = json.loads((folder / "config.json").read_text())
    numbers = [name for name, held in config.items() if type(held) is int and held > 0]
    assert len(numbers) > 3
    for name in ("num_hidden_layers", "n_codebooks", "hidden_size", "num_filters", "codebook_size"):
        if name not in config:
            continue
        (folder / "config.json").write_text(json.dumps({**config, name: value}))
        try:
            codec(weights=str(folder))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert not (isinstance(value, int) and value > 1000), f"{name} {value} was taken"
    (folder / "config.json").write_text(json.dumps(config))
    codec(weights=str(folder))
    shutil.rmtree(folder)


# OpenL3


def bomb(path: Path) -> Path:
    """Seven megabytes that unpack to seven gigabytes: zeros, packed member by member."""
    member = gzip.compress(bytes(1 << 26), 9)
    path.write_bytes(member * 104)
    return path


def declared(path: Path, **options: Any) -> Path:
    """A kernel of 2^38 values of which none is stored."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"layer"]
        layer = file.create_group("layer")
        layer.attrs["weight_names"] = [b"kernel"]
        layer.create_dataset("kernel", (2**38,), np.float32, **options)
    return path


@pytest.mark.parametrize("make", [bomb, declared, lambda path: declared(path, chunks=(2**20,))])
def test_openl3_weights_of_any_size_are_refused(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "weights.h5.gz")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from evaluation.embeddings.openl3_network import read_weights\n"
        "from qincodec.core.errors import UserError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_weights(Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "does not hold OpenL3 weights" in done[0] and len(done) == 2
    assert int(done[1]) < 500_000  # KiB


def test_layer_names_of_any_number_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = np.zeros(4000, "S8")
    with pytest.raises(UserError, match="layer_names has 4000 entries"):
        read_weights(tmp_path / "w.h5")
