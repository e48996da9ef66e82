"""Models on disk: the hash computed by hand, and everything that can be wrong with a folder."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qincodec import model_folder
from qincodec.core.errors import UserError

CONFIG = {"autoencoder": {"dim": 2}, "name": "x", "rate": 0.1}
TENSORS = {
    "b": torch.tensor([1.0, -2.0]),
    "a": torch.tensor([[1, 2]], dtype=torch.int64),
    "c": torch.tensor(3.0),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    model_folder.save(tmp_path / "model", CONFIG, TENSORS)
    return tmp_path / "model"


def edit_config(model: Path, **changes: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_hash_is_the_stated_one() -> None:
    expected = hashlib.sha256(b'{"autoencoder":{"dim":2},"name":"x","rate":0.1}')
    expected.update(b"\na torch.int64 (1, 2)\n" + bytes([1, *[0] * 7, 2, *[0] * 7]))
    expected.update(b"\nb torch.float32 (2,)\n" + bytes.fromhex("0000803f000000c0"))
    expected.update(b"\nc torch.float32 ()\n" + bytes.fromhex("00004040"))
    assert model_folder.model_hash(CONFIG, TENSORS) == expected.hexdigest()
    backwards = dict(reversed(TENSORS.items())), dict(reversed(CONFIG.items()))
    assert model_folder.model_hash(backwards[1], backwards[0]) == expected.hexdigest()


@pytest.mark.parametrize(
    "tensors",
    [
        {**TENSORS, "b": torch.tensor([1.0, -2.0000002])},
        {**TENSORS, "b": torch.tensor([[1.0, -2.0]])},
        {**TENSORS, "b": torch.tensor([1.0, -2.0]).view(torch.int32)},
        {**TENSORS, "d": torch.tensor(0.0)},
        {"b": TENSORS["b"], "a": TENSORS["a"], "x": TENSORS["c"]},
    ],
)
def test_hash_sees_every_difference(tensors: dict[str, torch.Tensor]) -> None:
    assert model_folder.model_hash(CONFIG, tensors) != model_folder.model_hash(CONFIG, TENSORS)


def test_round_trip(model: Path) -> None:
    config, tensors, digest = model_folder.load(model)
    assert config == CONFIG
    assert digest == model_folder.model_hash(CONFIG, TENSORS)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]


def test_tensors_that_share_memory_and_views_are_saved(tmp_path: Path) -> None:
    whole = torch.arange(6.0).view(2, 3)
    model_folder.save(tmp_path / "m", {}, {"whole": whole, "column": whole[:, 1], "turned": whole.T})
    tensors = model_folder.load(tmp_path / "m")[1]
    assert torch.equal(tensors["turned"], whole.T)
    assert torch.equal(tensors["column"], torch.tensor([1.0, 4.0]))


def test_both_files_are_as_readable_as_any_other(model: Path) -> None:
    """safetensors' own are the owner's alone, a trap in a shared folder and in a wheel."""
    (model.parent / "other").touch()
    modes = {path.stat().st_mode for path in (*model.iterdir(), model.parent / "other")}
    assert len(modes) == 1


def test_saving_replaces_what_was_there(model: Path) -> None:
    model_folder.save(model, {"new": 1}, {"z": torch.zeros(1)})
    config, tensors, _ = model_folder.load(model)
    assert (config, list(tensors)) == ({"new": 1}, ["z"])


def test_a_write_cut_short_does_not_load(model: Path) -> None:
    before = (model / "config.json").read_bytes()
    model_folder.save(model, CONFIG, {"b": torch.zeros(2)})
    (model / "config.json").write_bytes(before)  # as if power had failed between the two files
    with pytest.raises(UserError, match="damaged or was changed"):
        model_folder.load(model)


def test_where_no_folder_can_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write the model"):
        model_folder.save(tmp_path / "missing" / "model", CONFIG, TENSORS)


def test_changed_tensors_are_found(model: Path) -> None:
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged or was changed"):
        model_folder.load(model)


def test_changed_configurations_are_found(model: Path) -> None:
    edit_config(model, rate=0.2)
    with pytest.raises(UserError, match="damaged or was changed"):
        model_folder.load(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2.*update"),
        ({"version": None}, "version None"),
        ({"format": "other"}, "not the configuration"),
        ({"hash": None}, "states None"),
        ({"hash": ["x"]}, "damaged"),
    ],
)
def test_other_headings(model: Path, changes: dict, message: str) -> None:
    edit_config(model, **changes)
    with pytest.raises(UserError, match=message):
        model_folder.load(model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        model_folder.load(model)


class Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("something was unpickled",))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[1]", b"\xff" * 64, pickle.dumps(Bomb())],
    ids=["empty", "brace", "bytes", "deep", "list", "lengths", "pickle"],
)
def test_rubbish_is_one_clear_error(model: Path, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        model_folder.load(model)
    assert "\n" not in str(caught.value)


def test_torch_files_are_not_taken(model: Path) -> None:
    torch.save(TENSORS, model / "model.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        model_folder.load(model)


def test_other_safetensors_do_not_pass(model: Path) -> None:
    save_file({"b": torch.zeros(2)}, model / "model.safetensors")
    with pytest.raises(UserError, match="damaged"):
        model_folder.load(model)


def test_finding_models(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_folder.find(model) == model
    assert model_folder.find(str(model)) == model
    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path / "none")
    for wrong, message in [
        (None, "no trained weights came"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "no config.json in it"),
        (model / "config.json", "is not a model"),
    ]:
        with pytest.raises(UserError, match=message):
            model_folder.find(wrong)
    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path)
    assert model_folder.shipped() == ["model"]
    assert model_folder.find() == model_folder.find("model") == model
    with pytest.raises(UserError, match="shipped are model"):
        model_folder.find("other")
