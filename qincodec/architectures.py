"""The autoencoder's architectures: model sizes by name, stored configurations, and the class for each.

``transform_path`` of a stored configuration selects the class: the paper's (`qincodec.autoencoder`) if false,
ours (`qincodec.transform_path`) if true.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from qincodec.autoencoder import Autoencoder, AutoencoderConfig
from qincodec.core.errors import UserError, check_whole, unknown
from qincodec.transform_path import WAVEFORM_TO_HZ, TransformAutoencoder, TransformConfig

#: Configurations by name. The paper does not give its widths; these are Vocos'.
SIZES = {
    "paper-d16": AutoencoderConfig(latent_dim=16),
    "paper-d32": AutoencoderConfig(latent_dim=32),
    "paper-d64": AutoencoderConfig(latent_dim=64),
    # 7.5M parameters: the paper's depth at half its width.
    "paper-d32-mini": AutoencoderConfig(latent_dim=32, dim=256, intermediate_dim=768),
    # 6.3M parameters, a ninth of the paper's work: trains on a laptop's CPU. 60 latents carry the waveform.
    "small": TransformConfig(
        latent_dim=80, dim=256, intermediate_dim=768, num_layers=4, hop_length=512, envelope_latents=20
    ),
    # For tests.
    "tiny": AutoencoderConfig(latent_dim=8, dim=32, intermediate_dim=64, num_layers=1),
}


def of_size(name: str) -> AutoencoderConfig:
    """The configuration of this name. Raises UserError if it is unknown."""
    if name not in SIZES:
        raise unknown("autoencoder size", name, list(SIZES))
    return SIZES[name]


def autoencoder(config: AutoencoderConfig, tensors: dict[str, torch.Tensor] | None = None) -> Autoencoder:
    """The autoencoder of this shape, with ``tensors`` as weights, or with newly drawn weights.

    Raises:
        UserError: tensors missing, unknown or of another shape.
    """
    kind: Any = TransformAutoencoder if isinstance(config, TransformConfig) else Autoencoder
    made: Autoencoder = kind(config) if tensors is None else kind.from_tensors(config, tensors)
    return made


def to_dict(config: AutoencoderConfig) -> dict[str, Any]:
    """A configuration in its stored form."""
    fields = dataclasses.asdict(config)
    envelope = fields.pop("envelope_latents", 0)
    transform = isinstance(config, TransformConfig)
    # Models from before this field had the default, and must keep their hash.
    if fields.get("waveform_to_hz") == WAVEFORM_TO_HZ:
        del fields["waveform_to_hz"]
    return {**fields, "transform_path": transform, "envelope_latents": envelope}


def from_dict(values: dict[str, Any]) -> AutoencoderConfig:
    """Inverse of `to_dict`. Raises UserError if keys are missing, unknown, or of a wrong type."""
    try:
        fields = {"transform_path": False, "envelope_latents": 0, **values}
        if type(transform := fields.pop("transform_path")) is not bool:
            raise UserError(f"autoencoder: transform_path must be true or false, got {transform!r}")
        if transform:
            return TransformConfig(**fields)
        envelope = fields.pop("envelope_latents")
        config = AutoencoderConfig(**fields)
    except TypeError as error:
        raise UserError(f"autoencoder configuration does not fit: {error}") from error
    if check_whole("autoencoder: envelope_latents", envelope, 0, 4096):
        raise UserError("autoencoder: envelope_latents are part of a transform path: set transform_path")
    return config
