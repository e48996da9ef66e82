"""Choice of the QINCODEC models for the paper's rows: from training runs, given by the user, or shipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.paper.printed import CHOSEN_DIM, FINETUNED, LATENT_DIMS, ROLES
from qincodec import model_folder
from qincodec.architectures import SIZES
from qincodec.codec import UNTRAINED, Qincodec, load
from qincodec.core.errors import UserError
from qincodec.quantizers.qinco2 import QINCO2
from qincodec.quantizers.qinco2 import SIZES as QINCO2_SIZES
from qincodec.transform_path import TransformConfig

#: Ending of a curve's name, because pictures are shared without their table.
RANDOM = " (random weights)"
_PAPER_QINCO2 = "M"


@dataclass(frozen=True)
class Model:
    """A model in a role.

    Attributes:
        role: one of `ROLES`.
        weights: argument for `qincodec.codec.load`.
        source: its origin, in words.
        latent_dim: D.
        ours: whether it is shipped with the program.
        hash: hash of configuration and weights.
        encoder: hash of the encoder alone: equal for quantizers that can be compared by their error.
        coder: hash of encoder and quantizer: equal before and after fine-tuning.
        trained: False for random weights.
        departures: its differences from the paper's sizes, in words; "" without any.
    """

    role: str
    weights: str
    source: str
    latent_dim: int
    ours: bool
    hash: str
    encoder: str
    coder: str
    trained: bool
    departures: str

    @property
    def label(self) -> str:
        """Its row label in the run."""
        return f"{self.role}-d{self.latent_dim}"

    @property
    def mark(self) -> str:
        """Ending of its name in a picture: whose it is, or that it is random."""
        if not self.trained:
            return RANDOM
        return f" (our '{self.weights}')" if self.ours else ""

    @property
    def description(self) -> str:
        """One line for people."""
        text = f"{self.source}, D = {self.latent_dim}, hash {self.hash[:16]}"
        text += f"; not the paper's size: {self.departures}" if self.departures else "; the paper's size"
        return text if self.trained else f"RANDOM WEIGHTS, never trained: {text}"


def kind_of(role: str) -> str:
    """Kind of the role's quantizer."""
    return role.removesuffix(FINETUNED)


def parse_models(texts: Iterable[str]) -> list[tuple[str, str]]:
    """``ROLE=PATH`` pairs of ``--model``. Raises UserError for anything else."""
    pairs = []
    for text in texts:
        role, separator, path = text.partition("=")
        if role not in ROLES or not separator or not path:
            raise UserError(f"--model takes ROLE=PATH with a role of {', '.join(ROLES)}; got '{text}'")
        pairs.append((role, path))
    return pairs


def find_models(
    training: Sequence[Path], given: Sequence[tuple[str, str]], skip: Iterable[str] = ()
) -> tuple[dict[str, list[Model]], dict[str, str]]:
    """The models of every role, the one for the tables first, and the reason for each role without models.

    Given models come first, then models of training runs. A shipped model is used only for a role without
    either; one from before models recorded it has gone through all three stages.

    Args:
        training: folders that `qincodec train` wrote.
        given: (role, folder of a model or ``untrained:SIZE``).
        skip: roles to leave out.

    Raises:
        UserError: a folder is not a training run or a model, a model has another quantizer than its role, a
            role has two models of one latent dimension, or a model has two roles.
    """
    skipped = set(skip)
    found: list[Model] = [
        describe(role, path, f"given: {path}") for role, path in given if role not in skipped
    ]
    missing: dict[str, list[str]] = {}
    for run in training:
        for role, folder in _stages(run).items():
            if role in skipped:
                continue
            if (folder / model_folder.CONFIG_NAME).is_file():
                found.append(describe(role, str(folder), f"trained in {run.name}"))
            else:
                missing.setdefault(role, []).append(f"'{run}' has no {folder.parent.name}/{folder.name}")
    _refuse_doubles(found)
    roles = {model.role for model in found}
    for name in model_folder.shipped():
        codec = load(name)
        kind = "" if codec.quantizer is None else codec.quantizer.kind
        role = kind if codec.finetuned is False else kind + FINETUNED
        if role in ROLES and role not in roles | skipped:
            model = _described(codec, role, name, f"our shipped model '{name}'")
            if all(model.label != other.label for other in found):
                found.append(model)
    models = {role: [model for model in found if model.role == role] for role in ROLES}
    for entries in models.values():
        entries.sort(key=lambda model: model.latent_dim != CHOSEN_DIM)  # a stable sort keeps the given order
    reasons = {
        role: _reason(role, missing, role in skipped) for role, entries in models.items() if not entries
    }
    return {role: entries for role, entries in models.items() if entries}, reasons


def describe(role: str, weights: str, source: str) -> Model:
    """Load a model and describe it. Raises UserError if it does not fit its role."""
    if "," in weights:
        raise UserError(f"the path of a model must not have a comma: '{weights}'; rename or link the folder")
    codec = load(weights)
    return _described(codec, role, weights, source)


def _described(codec: Qincodec, role: str, weights: str, source: str) -> Model:
    if codec.quantizer is None or codec.quantizer.kind != kind_of(role):
        kind = "no quantizer" if codec.quantizer is None else f"quantizer '{codec.quantizer.kind}'"
        raise UserError(
            f"model '{weights}' has {kind}, but role '{role}' needs '{kind_of(role)}'; give another model"
        )
    if codec.finetuned not in (None, role.endswith(FINETUNED)):
        state = "is fine-tuned" if codec.finetuned else "is not fine-tuned"
        raise UserError(f"model '{weights}' {state}, so it cannot be '{role}'; give another model or role")
    encoder = {
        f"{n}.{name}": tensor
        for n, module in enumerate(codec.autoencoder.encoder_side)
        for name, tensor in module.state_dict().items()
    }
    ours = weights in model_folder.shipped()
    return Model(
        role,
        weights if ours or weights.startswith(UNTRAINED) else str(Path(weights).absolute()),
        source,
        codec.autoencoder.config.latent_dim,
        ours,
        codec.hash,
        model_folder.model_hash({}, encoder),
        model_folder.model_hash(codec.quantizer.config(), encoder | codec.quantizer.state_dict(prefix="q.")),
        codec.trained,
        "; ".join(_departures(codec)),
    )


def _departures(codec: Qincodec) -> list[str]:
    config = codec.autoencoder.config
    parts = []
    if config.latent_dim not in LATENT_DIMS:
        parts.append(f"D {config.latent_dim}, the paper has {', '.join(map(str, LATENT_DIMS))}")
    paper = SIZES[f"paper-d{CHOSEN_DIM}"]
    if config.num_layers != paper.num_layers:
        parts.append(f"ConvNeXt blocks {config.num_layers}, the paper has {paper.num_layers}")
    widths = (config.dim, config.intermediate_dim), (paper.dim, paper.intermediate_dim)
    if widths[0] != widths[1]:
        parts.append("widths {}/{}, Vocos has {}/{}".format(*widths[0], *widths[1]))
    signal = (config.sample_rate, config.hop_length), (paper.sample_rate, paper.hop_length)
    if signal[0] != signal[1]:
        parts.append("{} Hz, hop {}, the paper has {} Hz, hop {}".format(*signal[0], *signal[1]))
    if isinstance(config, TransformConfig):
        parts.append("a transform path, which the paper does not have")
    quantizer = codec.quantizer
    if isinstance(quantizer, QINCO2) and quantizer.sizes != QINCO2_SIZES[_PAPER_QINCO2]:
        here, there = (
            "L {num_blocks}, d_e {width}, d_h {hidden}".format(**sizes)
            for sizes in (quantizer.sizes, QINCO2_SIZES[_PAPER_QINCO2])
        )
        parts.append(f"QINCO2 of {here}, the paper has {there}")
    return parts


def _stages(run: Path) -> dict[str, Path]:
    """Role -> folder of its model in a training run. Raises UserError if ``run`` is not a training run."""
    folder = run.expanduser().absolute()
    if not (folder / "training.json").is_file():
        raise UserError(
            f"'{run}' is not the folder of a training (training.json is missing); give the folder that "
            "`qincodec train --out` wrote, or models with --model ROLE=PATH"
        )
    return {
        role: folder / f"{'finetuned' if role.endswith(FINETUNED) else 'quantizer'}-{kind_of(role)}" / "model"
        for role in ROLES
    }


def _refuse_doubles(models: Sequence[Model]) -> None:
    labels: dict[str, Model] = {}
    hashes: dict[str, Model] = {}
    for model in models:
        same = labels.setdefault(model.label, model)
        if same is not model:
            raise UserError(
                f"two models are '{model.role}' with D = {model.latent_dim}: {same.weights} and"
                f" {model.weights}; give one"
            )
        same = hashes.setdefault(model.hash, model)
        if same is not model:
            raise UserError(
                f"one model is given as '{same.role}' and as '{model.role}': {model.weights}; give another"
                " model, because roles differ in quantizer or fine-tuning"
            )


def _reason(role: str, missing: Mapping[str, list[str]], skipped: bool) -> str:
    if skipped:
        return f"left out with --skip {role}"
    stage = "finetune" if role.endswith(FINETUNED) else "quantizer"
    found = "; ".join(missing.get(role, [])) or "no weights"
    return (
        f"{found}: run `qincodec train {stage} RUN --kind {kind_of(role)}` and give --training RUN, or give"
        f" --model {role}=PATH"
    )
