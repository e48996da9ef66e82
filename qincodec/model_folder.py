"""A model on disk: a folder with ``config.json`` and ``model.safetensors``, tied together by a hash.

The hash is SHA-256 over the configuration and over name, type, shape and bytes of every tensor. It is stored
in ``config.json``, and its beginning in every .qnc file. Nothing in the folder is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qincodec.core.errors import UserError, shown
from qincodec.core.files import os_errors, whole_file
from qincodec.core.folders import kind_of

if TYPE_CHECKING:  # imported when a model is read, so that shipped models are listed without torch
    import torch

CONFIG_NAME = "config.json"
TENSORS_NAME = "model.safetensors"
#: Shipped models: one folder each, with the name for `find`.
PRETRAINED = Path(__file__).parent / "pretrained"
NOTHING_SHIPPED = "no trained weights came with this installation (install it again)"

_FORMAT = "qincodec"
_VERSION = 1


def model_hash(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a model, 64 hexadecimal digits: the same on every machine and device."""
    import torch

    digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shipped() -> list[str]:
    """Names of the models shipped with this version."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG_NAME}"))


def find(name_or_path: str | Path | None = None) -> Path:
    """The folder of a shipped model (the first if None), or of a path.

    Raises:
        UserError: it is neither a shipped model nor a folder with a model.
    """
    names = shipped()
    if name_or_path is None and not names:
        raise UserError(f"{NOTHING_SHIPPED}; give the folder of a model ({CONFIG_NAME} and {TENSORS_NAME})")
    if name_or_path is None or name_or_path in names:
        return PRETRAINED / (name_or_path or names[0])
    folder = Path(name_or_path)
    if (folder / CONFIG_NAME).is_file():
        return folder
    what = f"there is no {CONFIG_NAME} in it" if folder.is_dir() else "there is no such folder"
    if kind := kind_of(folder):
        what = f"it is {kind}"
    known = f"shipped are {', '.join(names)}" if names else NOTHING_SHIPPED
    raise UserError(
        f"'{name_or_path}' is not a model, {what}: give a folder with {CONFIG_NAME} and {TENSORS_NAME};"
        f" {known}"
    )


def save(folder: str | Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """Write a model, replacing an existing one. An interrupted write does not load.

    Args:
        folder: made if missing; its parent must exist.
        config: JSON values.
        tensors: of any device.

    Returns:
        The model's hash.
    """
    from safetensors.torch import save as serialized

    folder = Path(folder)
    digest = model_hash(config, tensors)
    content = {"format": _FORMAT, "version": _VERSION, "hash": digest, **config}
    with os_errors(f"cannot write the model '{folder}'"):
        folder.mkdir(exist_ok=True)
        with whole_file(folder / CONFIG_NAME) as of_config, whole_file(folder / TENSORS_NAME) as of_tensors:
            # Copies, because safetensors refuses tensors that share memory.
            copies = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
            # Not by `save_file`, because only the owner may read its files.
            of_tensors.write_bytes(serialized(copies))
            of_config.write_text(json.dumps(content, indent=2) + "\n")
    return digest


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Configuration, tensors (on the CPU) and hash of the model in ``folder``.

    Raises:
        UserError: files are missing, damaged, of a newer version, or changed since they were written.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (CONFIG_NAME, TENSORS_NAME):
        if not (folder / name).is_file():
            raise UserError(f"model '{folder}' is incomplete: {name} is missing; get a whole copy")
    try:
        config = json.loads((folder / CONFIG_NAME).read_bytes())
        if not isinstance(config, dict) or config.pop("format", None) != _FORMAT:
            raise UserError(f"'{folder / CONFIG_NAME}' is not the configuration of a {_FORMAT} model")
        if (version := config.pop("version", None)) != _VERSION:
            raise UserError(
                f"model '{folder}' has format version {shown(version)}, but this program reads version"
                f" {_VERSION}: update qincodec"
            )
        tensors = load_file(folder / TENSORS_NAME)
        stated = config.pop("hash", None)
        actual = model_hash(config, tensors)
    except UserError:
        raise
    except Exception as error:  # from three libraries, on any content
        reason = " ".join(f"{error or type(error).__name__}".split())
        raise UserError(f"model '{folder}' cannot be read: {reason[:300]}; get a whole copy") from error
    if stated != actual:
        raise UserError(
            f"model '{folder}' is damaged or was changed: its hash is {actual[:16]}, but its {CONFIG_NAME} "
            "states"
            f" {shown(stated)[:18]}; get a whole copy"
        )
    return config, tensors, actual
