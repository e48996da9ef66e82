"""Write the shipped models from the folder of a training: `python tools/ship_weights.py RUN`.

RUN has one autoencoder with the quantizers qinco2, rvq and irvq, and decoders fine-tuned on qinco2 and irvq.
The models are stored in half precision, each with only the parts that its base does not have. The model card
and the attribution in `small` stay; write them anew.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from evaluation.paper.models import describe
from evaluation.paper.printed import FINETUNED
from qincodec import model_folder
from qincodec.codec import load
from qincodec.core.errors import UserError

#: Bytes that all shipped files may have together.
LIMIT = 64_000_000


class Shipped(NamedTuple):
    """A shipped model.

    Attributes:
        name: of its folder.
        kind: its quantizer's.
        finetuned: whether its decoder went through stage 3.
        base: name of the model whose parts it takes.
    """

    name: str
    kind: str
    finetuned: bool
    base: str | None

    @property
    def stage(self) -> str:
        """Folder of its stage in a training."""
        return f"{'finetuned' if self.finetuned else 'quantizer'}-{self.kind}"

    @property
    def command(self) -> str:
        """What makes it in a training."""
        return f"qincodec train {'finetune' if self.finetuned else 'quantizer'} RUN --kind {self.kind}"


#: A base comes before the models that take its parts.
MODELS = (
    Shipped("small", "qinco2", True, None),
    Shipped("small-qinco2", "qinco2", False, "small"),
    Shipped("small-rvq", "rvq", False, "small-qinco2"),
    Shipped("small-irvq", "irvq", False, "small-qinco2"),
    Shipped("small-irvq-finetuned", "irvq", True, "small-irvq"),
)


def ship(run: Path, pretrained: Path = model_folder.PRETRAINED) -> dict[str, int]:
    """Replace the models in ``pretrained``; returns the bytes of each, of other files, and of all.

    Raises:
        UserError: ``run`` lacks a stage, its models are not of one encoder and quantizer, or they would be
            too large. Then nothing is changed.
    """
    folders = {model: run / model.stage / "model" for model in MODELS}
    for model, folder in folders.items():
        if not (folder / model_folder.CONFIG_NAME).is_file():
            raise UserError(f"'{run}' has no {model.stage}/model: make it with `{model.command}`")
    with tempfile.TemporaryDirectory(dir=pretrained, prefix=".") as temporary:
        made = Path(temporary)
        for model, folder in folders.items():
            codec = load(folder)
            codec.finetuned = model.finetuned  # a training's stage 2 does not record it
            codec.save(made / model.name, half=True, base=model.base)
        _check(made)
        sizes = _sizes(made)
        kept = {path: size for path, size in _sizes(pretrained).items() if path not in sizes}
        totals = {m.name: sum(n for path, n in sizes.items() if path.parent.name == m.name) for m in MODELS}
        totals |= {"cards and others": sum(kept.values()), "all": sum(kept.values()) + sum(sizes.values())}
        if totals["all"] > LIMIT:
            shown = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in totals.items())
            raise UserError(f"{LIMIT / 1e6:.0f} MB are allowed, these have {shown}: train smaller models")
        for path in sizes:
            (pretrained / path).parent.mkdir(exist_ok=True)
            (made / path).replace(pretrained / path)
    return totals


def _sizes(folder: Path) -> dict[Path, int]:
    """Path below a folder of models -> bytes, of all files of all models."""
    return {path.relative_to(folder): path.stat().st_size for path in folder.glob("*/*") if path.is_file()}


def _check(made: Path) -> None:
    """Raises UserError unless the models are of one encoder, and fine-tuning left the quantizers alone."""
    found = {
        model: describe(model.kind + FINETUNED * model.finetuned, str(made / model.name), model.stage)
        for model in MODELS
    }
    first = found[MODELS[0]]
    for model, described in found.items():
        if described.encoder != first.encoder:
            raise UserError(
                f"{model.stage} has another encoder than {first.source}: make it again with `{model.command}`"
            )
        before = next(other for at, other in found.items() if (at.kind, at.finetuned) == (model.kind, False))
        if described.coder != before.coder:
            raise UserError(
                f"{model.stage} has another quantizer than {before.source}: make it again with"
                f" `{model.command}`"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        for name, size in ship(Path(sys.argv[1])).items():
            print(f"{name:<22} {size / 1e6:5.1f} MB")
    except UserError as error:
        sys.exit(f"ship_weights: {error}")
