"""Shipped models: made from the folder of a training, and the rows and curves that they fill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import ship_weights

from evaluation.paper.models import find_models
from evaluation.paper.run import PaperRequest, reproduce
from qincodec import model_folder
from qincodec.codec import Qincodec, load
from qincodec.core.errors import UserError

Build = Callable[..., Qincodec]
STAGES = [("quantizer", kind) for kind in ("rvq", "irvq", "qinco2")]
STAGES += [("finetuned", kind) for kind in ("irvq", "qinco2")]


def save(run: Path, stage: str, codec: Qincodec) -> None:
    assert codec.quantizer is not None
    folder = run / f"{stage}-{codec.quantizer.kind}" / "model"
    folder.parent.mkdir(parents=True, exist_ok=True)
    codec.trained = True  # what is tested is the name of a trained model
    codec.save(folder)


@pytest.fixture
def run(build: Build, tmp_path: Path) -> Path:
    """A training with all stages that are shipped."""
    for stage, kind in STAGES:
        save(tmp_path / "run", stage, build(kind, stage == "finetuned"))
    return tmp_path / "run"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of shipped models, with the card and an older model of `small`."""
    folder = tmp_path / "shipped"
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "README.md").write_text("card")
    (folder / "small" / "config.json").write_text("older")
    monkeypatch.setattr(model_folder, "PRETRAINED", folder)
    return folder


def test_shipped_models_fill_all_rows_of_qincodec(
    run: Path, shipped: Path, clips: Path, tmp_path: Path
) -> None:
    sizes = ship_weights.ship(run, shipped)
    files = {path.relative_to(shipped): path.stat().st_size for path in shipped.rglob("*") if path.is_file()}
    assert len(files) == 11 and sizes["all"] == sum(files.values())
    assert (shipped / "small" / "README.md").read_text() == "card"
    assert max(sizes["small-qinco2"], sizes["small-irvq-finetuned"]) < sizes["small"] / 10

    found = reproduce(
        PaperRequest(data=str(clips), skip=("dac", "encodec", "openl3"), limit=1), tmp_path / "out"
    )
    rows = [row for table in found.tables for row in table.rows if row.wanted.finetuned is not None]
    assert len(rows) == 11
    for row in rows:
        assert row.reason == "" and row.n == 1
        assert "our shipped model 'small" in row.model and "not the paper's size: D 8" in row.model
        assert all(entry.value is not None for entry in row.entries.values() if entry.ran)
    assert not any("different encoders" in note for note in found.tables[2].notes)
    assert not any("not one model before" in note for table in found.tables for note in table.notes)

    _, usage, curves = found.figures
    labels = {(series.panel, series.label) for series in usage.series}
    names = {"QINCODEC (our 'small')", "QINCODEC with iRVQ (our 'small-irvq-finetuned')"}
    assert labels == {(f"{kbps} kbps", name) for kbps in (8, 16) for name in names}
    assert {series.label for series in curves.series} == {"D = 8, qinco2-finetuned (our 'small')"}
    assert all(len(series.points) == 4 for series in curves.series)
    assert {what for what, reason in curves.missing if "shipped models have D = 8 alone" in reason} == {
        "D = 16",
        "D = 32",
        "D = 64",
    }
    ours = next(note for note in found.notes if "are our own" in note)
    assert all(model.name in ours for model in ship_weights.MODELS)


def test_each_is_the_model_of_its_stage(run: Path, shipped: Path) -> None:
    ship_weights.ship(run, shipped)
    assert model_folder.find() == shipped / "small"
    models, reasons = find_models([], [])
    assert not reasons
    places = {role: entries[0].weights for role, entries in models.items()}
    assert places == {
        "rvq": "small-rvq",
        "irvq": "small-irvq",
        "irvq-finetuned": "small-irvq-finetuned",
        "qinco2": "small-qinco2",
        "qinco2-finetuned": "small",
    }
    for stage, kind in STAGES:
        name = places[kind + "-finetuned" * (stage == "finetuned")]
        stored, made = load(name), load(run / f"{stage}-{kind}" / "model")
        tensors = stored._state()[1]
        for key, tensor in made._state()[1].items():
            assert (tensors[key] == (tensor.half().to(tensor.dtype) if tensor.ndim > 1 else tensor)).all()
    with pytest.raises(UserError, match="is fine-tuned, so it cannot be 'qinco2'"):
        find_models([], [("qinco2", "small")])
    with pytest.raises(UserError, match="is not fine-tuned, so it cannot be 'irvq-finetuned'"):
        find_models([], [("irvq-finetuned", "small-irvq")])


def test_what_cannot_be_shipped_changes_nothing(
    run: Path, shipped: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            ship_weights.ship(run, shipped)
        assert sorted(path.name for path in shipped.rglob("*")) == ["README.md", "config.json", "small"]
        assert (shipped / "small" / "config.json").read_text() == "older"

    with monkeypatch.context() as patch:
        patch.setattr(ship_weights, "LIMIT", 300_000)
        refused(r"these have small 0\.3, small-qinco2 0\.0")
    save(run, "quantizer", build("rvq", False, 16))
    refused("quantizer-rvq has another encoder than finetuned-qinco2: make it again")
    save(run, "quantizer", build("rvq", False))
    other = build("irvq", True)
    other.quantizer.sigmas *= 2  # type: ignore[union-attr,operator]
    save(run, "finetuned", other)
    refused("finetuned-irvq has another quantizer than quantizer-irvq")
    (run / "finetuned-irvq" / "model" / "config.json").unlink()
    refused("no finetuned-irvq/model: make it with `qincodec train finetune RUN --kind irvq`")
