"""Models on disk: the hash computed by hand, and everything that can be wrong with a folder."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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
        ({"version": 3}, "version 3.*update"),
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


#: Four parts: "net.encoder", "net.decoder", "codes", and "tables", which not all have.
WHOLE = {
    "net.encoder.0.weight": torch.tensor([0.0, 1.0]),
    "net.encoder.1.weight": torch.tensor([[1.0, 2.0]]),
    "net.decoder.weight": torch.tensor([3.0, 4.0]),
    "codes.books": torch.tensor([[5, 6]]),
    "tables.0": torch.tensor([7], dtype=torch.int32),
}
#: Another decoder; then other codes, no tables, and an encoder whose zero has another sign.
DECODER = WHOLE | {"net.decoder.weight": torch.tensor([3.0, 5.0])}
CODES = {name: t for name, t in DECODER.items() if name != "tables.0"} | {
    "codes.sigmas": torch.tensor([8.0]),
    "net.encoder.0.weight": torch.tensor([-0.0, 1.0]),
}


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Folder of three models: b has the base a, c has the base b."""
    for name, tensors, base in (("a", WHOLE, None), ("b", DECODER, "a"), ("c", CODES, "b")):
        model_folder.save(tmp_path / name, CONFIG | {"is": name}, tensors, base=base)
    return tmp_path


def test_with_a_base_it_is_the_whole_model_bit_for_bit(chain: Path) -> None:
    for name, tensors in (("a", WHOLE), ("b", DECODER), ("c", CODES)):
        digest = model_folder.save(chain / "whole", CONFIG | {"is": name}, tensors)
        for folder in (chain / "whole", chain / name):
            config, found, hash_ = model_folder.load(folder)
            assert (config, hash_) == (CONFIG | {"is": name}, digest)
            assert found.keys() == tensors.keys()
            for key, tensor in tensors.items():
                assert found[key].dtype == tensor.dtype and found[key].shape == tensor.shape
                assert found[key].numpy().tobytes() == tensor.numpy().tobytes()
    # On disk are only the parts that differ, each whole.
    assert list(load_file(chain / "b" / "model.safetensors")) == ["net.decoder.weight"]
    of_c = {"codes.books", "codes.sigmas", "net.encoder.0.weight", "net.encoder.1.weight"}
    assert set(load_file(chain / "c" / "model.safetensors")) == of_c


def test_a_base_that_has_everything_and_one_that_is_reached_by_a_link(chain: Path, tmp_path: Path) -> None:
    model_folder.save(chain / "same", {}, WHOLE, base="a")
    assert model_folder.load(chain / "same")[1].keys() == WHOLE.keys()
    assert not load_file(chain / "same" / "model.safetensors")
    (tmp_path / "elsewhere").mkdir()
    digest = model_folder.save(chain / "alone", CONFIG, TENSORS, base="a")  # no part is the base's
    assert model_folder.load((chain / "alone").rename(tmp_path / "elsewhere" / "alone"))[2] == digest
    (tmp_path / "elsewhere" / "link").symlink_to(chain / "c")
    assert model_folder.load(tmp_path / "elsewhere" / "link")[2] == model_folder.load(chain / "c")[2]


def test_half_precision_is_rounded_before_parts_are_compared(tmp_path: Path) -> None:
    tensors = {"net.encoder.weight": torch.tensor([[0.1]]), "net.decoder.bias": torch.tensor([0.1])}
    model_folder.save(tmp_path / "a", {}, tensors, half=True)
    digest = model_folder.save(tmp_path / "b", {}, tensors, half=True, base="a")
    found = model_folder.load(tmp_path / "b")[1]
    assert (found["net.encoder.weight"].dtype, found["net.decoder.bias"].dtype) == (
        torch.float16,
        torch.float32,
    )
    assert not load_file(tmp_path / "b" / "model.safetensors")
    assert digest == model_folder.model_hash({}, found)


def test_what_is_wrong_with_a_base_is_one_clear_error(chain: Path) -> None:
    def error_of(name: str) -> str:
        with pytest.raises(UserError) as caught:
            model_folder.load(chain / name)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = chain / "a" / "config.json"
    original = path.read_text()
    # Another model in the base's place is no damage, so only what takes its parts can tell.
    model_folder.save(chain / "a", CONFIG, WHOLE | {"codes.books": torch.tensor([[5, 7]])})
    assert "'a' was changed: its hash is" in error_of("b")
    assert "takes parts of its base 'b', which must be beside it" in error_of("c")
    path.write_text(original)
    assert "'a', which must be beside it" in error_of("b") and "damaged or was changed" in error_of("b")
    path.unlink()
    assert "config.json is missing" in error_of("c")
    with pytest.raises(UserError, match="'a', which must be beside it"):
        model_folder.save(chain / "d", CONFIG, WHOLE, base="a")
    assert not (chain / "d").exists()


def test_bases_do_not_go_in_a_circle(chain: Path) -> None:
    with pytest.raises(UserError, match="go in a circle: a -> c -> b -> a"):
        model_folder.save(chain / "a", CONFIG, WHOLE, base="c")
    with pytest.raises(UserError, match="go in a circle: a -> a"):
        model_folder.save(chain / "a", CONFIG, WHOLE, base="a")
    assert model_folder.load(chain / "c")  # nothing was written
    edit_config(chain / "a", version=2, base={"name": "c", "parts": []})
    with pytest.raises(UserError, match="go in a circle: b -> a -> c -> b"):
        model_folder.load(chain / "b")


@pytest.mark.parametrize(
    "base",
    [None, 3, "a", {"name": "a"}, {"name": "a", "parts": "codes"}, {"name": "a", "parts": {"codes": 1}}],
)
def test_a_base_names_a_list_of_parts(chain: Path, base: object) -> None:
    edit_config(chain / "b", base=base)
    with pytest.raises(UserError, match="does not say which parts are its base's"):
        model_folder.load(chain / "b")


@pytest.mark.parametrize("base", ["../m/a", "..", ".", "", "/etc", "a/b", "a\\b", "a\0", None, 3, ["a"]])
def test_a_base_is_a_folder_beside_the_model(chain: Path, base: object) -> None:
    edit_config(chain / "b", base={"name": base, "parts": ["codes"]})
    with pytest.raises(UserError, match="a base is the name of a folder beside the model's"):
        model_folder.load(chain / "b")


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
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.safetensors").touch()
    for wrong, message in [
        (None, "no trained weights came"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "no config.json in it"),
        (model / "config.json", "is not a model"),
        (tmp_path / "half", "is not a model, there is no config.json in it: give"),
    ]:
        with pytest.raises(UserError, match=message):
            model_folder.find(wrong)
    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path)
    assert model_folder.shipped() == ["model"]
    assert model_folder.find() == model_folder.find("model") == model
    with pytest.raises(UserError, match="shipped are model"):
        model_folder.find("other")
    digest = model_folder.save(tmp_path / "small", CONFIG, TENSORS | {"d": torch.zeros(1)})
    model_folder.save(tmp_path / "another", {}, TENSORS)
    assert model_folder.shipped() == ["small", "another", "model"]
    assert model_folder.find() == tmp_path / "small"
    assert model_folder.shipped_as(digest[:16]) == "small"
    assert model_folder.shipped_as("0" * 16) is None
