"""Models and training configurations as damage, an editor or an attacker may leave them.

A hostile model's hash fits: it is of the changed files. Each is read, or refused in one line, in bounded
memory and time; what is read also codes, or says in one line why it does not.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mutations import VALUES, little_memory, mutated_bytes, mutated_values

from qincodec import architectures, model_folder
from qincodec.autoencoder import AutoencoderConfig
from qincodec.codec import Qincodec, load
from qincodec.core.errors import UserError
from qincodec.quantizers.base import Quantizer
from qincodec.quantizers.faiss_additive import FaissLSQ, FaissRQ
from qincodec.quantizers.fsq import FSQ
from qincodec.quantizers.irvq import IRVQ
from qincodec.quantizers.qinco2 import QINCO2
from qincodec.quantizers.rvq import RVQ
from qincodec.training.config import load_config, shipped
from qincodec.transform_path import TransformConfig

SHAPE = AutoencoderConfig(latent_dim=4, dim=8, intermediate_dim=8, num_layers=1, hop_length=64)
TRANSFORM = TransformConfig(
    latent_dim=4, dim=8, intermediate_dim=8, num_layers=1, hop_length=64, envelope_latents=2
)


def models() -> list[tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """Configuration and tensors of a small model of each quantizer."""
    torch.manual_seed(0)
    quantizers: list[Quantizer] = [
        RVQ(4, 2, 8),
        IRVQ(4, 2, 8),
        QINCO2(4, 2, 8, num_blocks=1, width=4, hidden=4, search={"candidates": 4, "beam": 2}),
        FSQ(4, 12),
        FaissRQ(4, 2, 8),
        FaissLSQ(4, 2, 8, searches=2),
    ]
    return [
        Qincodec(architectures.autoencoder(TRANSFORM if number % 2 else SHAPE), quantizer)._state()
        for number, quantizer in enumerate(quantizers)
    ]


def one_line(action: Any) -> bool:
    """Whether it went well; if not, it said why in one short line."""
    try:
        action()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)[:2000]
        return False
    return True


@little_memory()
def fuzz_models(folder: Path, count: int, seed: int) -> None:
    dice, seeds = random.Random(seed), models()
    sound, read = 0.1 * torch.randn(1, 1, 300), 0
    for _ in range(count):
        config, tensors = dice.choice(seeds)
        if dice.random() < 0.8:
            config = mutated_values(config, dice)
        else:
            tensors = dict(tensors)
            name = dice.choice(sorted(tensors))
            tensor = tensors.pop(name)
            kind = dice.choice([torch.float16, torch.int64, torch.bool, torch.complex64, torch.float64])
            new = [tensor.to(kind), tensor[None], tensor * float("nan"), torch.zeros(0), tensor * 1e30]
            tensors[dice.choice([name, name, name, "x", f"tables.{dice.randint(0, 2)}"])] = dice.choice(new)
        model_folder.save(folder / "m", config, tensors)
        if dice.random() < 0.2:
            path = folder / "m" / dice.choice([model_folder.CONFIG_NAME, model_folder.TENSORS_NAME])
            path.write_bytes(mutated_bytes(path.read_bytes(), dice))
        codec: list[Qincodec] = []
        if one_line(lambda: codec.append(load(folder / "m"))):  # noqa: B023
            read += 1
            assert codec[0].trained in (True, False)
            one_line(lambda: codec[0].reconstruct(sound))  # noqa: B023
    assert read > count / 100  # not all mutations matter


@little_memory()
def fuzz_configurations(folder: Path, count: int, seed: int) -> None:
    dice = random.Random(seed)
    seeds = [load_config(name).model_dump(mode="json") for name in shipped()]
    seeds += [dict(s, autoencoder={"dim": 8, "num_layers": 2, "transform_path": False}) for s in seeds]
    path, read = folder / "c.yaml", 0
    for _ in range(count):
        values = dice.choice(seeds)
        if dice.random() < 0.6:
            text = yaml.safe_dump(mutated_values(values, dice)).encode("utf-8", "surrogateescape")
        else:
            text = mutated_bytes(yaml.safe_dump(values).encode(), dice)
        path.write_bytes(text)
        read += one_line(lambda: load_config(path))
    assert read > count / 100


def test_mutated_models(tmp_path: Path) -> None:
    fuzz_models(tmp_path, 250, seed=0)


def test_mutated_configurations(tmp_path: Path) -> None:
    fuzz_configurations(tmp_path, 100, seed=0)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_thousand_mutated_models(tmp_path: Path) -> None:
    fuzz_models(tmp_path, 10_000, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_thousand_mutated_configurations(tmp_path: Path) -> None:
    fuzz_configurations(tmp_path, 10_000, seed=1)


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        (None, "trained", "x", "trained must be true or false, got 'x'"),
        (None, "trained", 1, "trained must be true or false, got 1"),
        (
            "autoencoder",
            "num_layers",
            10**9,
            "num_layers must be a whole number from 1 to 128, got 1000000000",
        ),
        ("autoencoder", "dim", 10**9, "dim must be a whole number from 1 to 8192, got 1000000000"),
        ("autoencoder", "sample_rate", 1, "sample_rate must be a whole number from 4000 to 768000, got 1"),
        ("quantizer", "num_codebooks", 10**9, "num_codebooks must be a whole number from 1 to 1024, got 10"),
        (
            "quantizer",
            "codebook_size",
            10**9,
            "codebook_size must be a whole number from 2 to 1048576, got 10",
        ),
        ("quantizer", "num_blocks", 10**9, "num_blocks must be a whole number from 0 to 128, got 1000000000"),
        ("quantizer", "width", "wide", "width must be a whole number from 1 to 8192, got 'wide'"),
        (
            "quantizer",
            "search",
            {"beam": 10**9},
            "beam must be a whole number from 1 to 4096, got 1000000000",
        ),
        ("quantizer", "search", {"candidates": "x"}, "candidates must be a whole number from 1 to 65536"),
        ("quantizer", "search", {"wide": 1}, "search does not fit.*it has candidates, beam"),
        ("quantizer", "kind", 5, "unknown quantizer '5'"),
        ("quantizer", "kind", "two\nlines", "unknown quantizer 'two lines'"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_range(
    tmp_path: Path, part: str | None, name: str, value: Any, message: str
) -> None:
    config, tensors = models()[2]
    (config if part is None else config[part])[name] = value
    model_folder.save(tmp_path / "m", config, tensors)
    with pytest.raises(UserError, match=f"model '.*m': .*{message}"):
        load(tmp_path / "m")


@pytest.mark.parametrize("name", ["trained", "autoencoder", "quantizer"])
def test_a_value_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    config, tensors = models()[0]
    del config[name]
    model_folder.save(tmp_path / "m", config, tensors)
    with pytest.raises(UserError, match=f"has no '{name}'"):
        load(tmp_path / "m")


def test_the_mutations_hold_what_has_been_harmful() -> None:
    assert {10**9, "x", 2**63} <= {value for value in VALUES if isinstance(value, int | str)}
    assert json.loads(json.dumps(mutated_values({"a": [1, 2]}, random.Random(0)))) != {"a": [1, 2]}
