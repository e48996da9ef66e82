"""A model on disk: a folder with ``config.json`` and ``model.safetensors``, tied together by a hash.

The hash is SHA-256 over the configuration and over name, type, shape and bytes of every tensor. It is stored
in ``config.json``, and its beginning in every .qnc file. Nothing in the folder is unpickled.

Models can share parts on disk. ``config.json`` then names the base, another model's folder beside this one,
and the parts that are read from it. A part is all tensors of a module, named by its first two levels:
``autoencoder.encoder``, ``quantizer.networks``, ``tables``. The base can have a base itself. The hash is that
of the complete model, so it is the same with and without a base.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
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
_DEFAULT = "small"
NOTHING_SHIPPED = "no trained weights came with this installation (install it again)"

_FORMAT = "qincodec"
_VERSION, _WITH_BASE = 1, 2


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
    """Names of the models shipped with this version, the default first."""
    names = (path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG_NAME}"))
    return sorted(names, key=lambda name: (name != _DEFAULT, name))


def shipped_as(beginning: str) -> str | None:
    """Name of the shipped model whose hash begins like this; None if there is none."""
    for name in shipped():
        stated = json.loads((PRETRAINED / name / CONFIG_NAME).read_bytes())["hash"]
        if stated.startswith(beginning):
            return name
    return None


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
    if (kind := kind_of(folder)) and not (folder / TENSORS_NAME).is_file():
        what = f"it is {kind}"
    known = f"shipped are {', '.join(names)}" if names else NOTHING_SHIPPED
    raise UserError(
        f"'{name_or_path}' is not a model, {what}: give a folder with {CONFIG_NAME} and {TENSORS_NAME};"
        f" {known}"
    )


def save(
    folder: str | Path,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    *,
    half: bool = False,
    base: str | None = None,
) -> str:
    """Write a model, replacing an existing one. An interrupted write does not load.

    Args:
        folder: made if missing; its parent must exist.
        config: JSON values.
        tensors: of any device.
        half: round matrices to float16.
        base: name of another model's folder beside ``folder``; parts that it has, too, are not written.

    Returns:
        The model's hash.

    Raises:
        UserError: the folder cannot be written, or the base cannot be read, or this model is its base.
    """
    from safetensors.torch import save as serialized

    folder = Path(folder)
    if half:
        tensors = {
            name: t.half() if t.ndim > 1 and t.is_floating_point() else t for name, t in tensors.items()
        }
    digest = model_hash(config, tensors)
    heading: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "hash": digest}
    shared: list[str] = []
    if base is not None:
        same = _digests(tensors).items() & _digests(_load_base(folder, base, ())).items()
        shared = sorted(part for part, _ in same)
        tensors = {name: t for name, t in tensors.items() if _part(name) not in shared}
    if shared:  # otherwise the model needs no other
        heading |= {"version": _WITH_BASE, "base": {"name": base, "parts": shared}}
    with os_errors(f"cannot write the model '{folder}'"):
        folder.mkdir(exist_ok=True)
        with whole_file(folder / CONFIG_NAME) as of_config, whole_file(folder / TENSORS_NAME) as of_tensors:
            # Copies, because safetensors refuses tensors that share memory.
            copies = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
            # Not by `save_file`, because only the owner may read its files.
            of_tensors.write_bytes(serialized(copies))
            of_config.write_text(json.dumps(heading | config, indent=2) + "\n")
    return digest


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Configuration, tensors (on the CPU) and hash of the model in ``folder``, those of its base included.

    Raises:
        UserError: files of the model or of its base are missing, damaged, of a newer version, or changed
            since they were written.
    """
    return _load(Path(folder), ())


def _load(folder: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """``above``: the models whose base this is, directly or through others."""
    from safetensors.torch import load_file

    for name in (CONFIG_NAME, TENSORS_NAME):
        if not (folder / name).is_file():
            raise UserError(f"model '{folder}' is incomplete: {name} is missing; get a whole copy")
    changed, copy = "is damaged or was changed", "a whole copy"
    try:
        config = json.loads((folder / CONFIG_NAME).read_bytes())
        if not isinstance(config, dict) or config.pop("format", None) != _FORMAT:
            raise UserError(f"'{folder / CONFIG_NAME}' is not the configuration of a {_FORMAT} model")
        if (version := config.pop("version", None)) not in (_VERSION, _WITH_BASE):
            raise UserError(
                f"model '{folder}' has format version {shown(version)}, but this program reads versions"
                f" {_VERSION} and {_WITH_BASE}: update qincodec"
            )
        tensors = load_file(folder / TENSORS_NAME)
        if version == _WITH_BASE:
            base = config.pop("base", None)
            parts = base.get("parts") if isinstance(base, dict) else None
            if not (isinstance(parts, list) and all(isinstance(part, str) for part in parts)):
                raise UserError(
                    f"model '{folder}' does not say which parts are its base's: base must be a name and a"
                    f" list of parts, got {shown(base)}; get a whole copy"
                )
            of_base = _load_base(folder, base.get("name"), above)
            tensors |= {name: t for name, t in of_base.items() if _part(name) in parts}
            changed, copy = f"is damaged, or it or its base '{base['name']}' was changed", "whole copies"
        stated = config.pop("hash", None)
        actual = model_hash(config, tensors)
    except UserError:
        raise
    except Exception as error:  # from three libraries, on any content
        reason = " ".join(f"{error or type(error).__name__}".split())
        raise UserError(f"model '{folder}' cannot be read: {reason[:300]}; get a whole copy") from error
    if stated != actual:
        raise UserError(
            f"model '{folder}' {changed}: its hash is {actual[:16]}, but its {CONFIG_NAME} states"
            f" {shown(stated)[:18]}; get {copy}"
        )
    return config, tensors, actual


def _load_base(folder: Path, base: Any, above: tuple[Path, ...]) -> dict[str, torch.Tensor]:
    """Tensors of the base of the model in ``folder``."""
    # No path: a model from anywhere must not choose what is read here.
    if type(base) is not str or not re.fullmatch(r"[\w+@-][\w.+@-]*", base):
        raise UserError(
            f"model '{folder}' has the base {shown(base)}; a base is the name of a folder beside the model's,"
            " of letters, digits and . _ + @ -"
        )
    above = (*above, folder.resolve())  # also of a link to a model, for its base is beside the model
    place = (above[-1].parent / base).resolve()
    if place in above:
        names = " -> ".join(path.name for path in (*above, place))
        raise UserError(f"model '{above[0]}' has bases that go in a circle: {names}; get whole copies")
    try:
        return _load(place, above)[1]
    except UserError as error:
        raise UserError(
            f"model '{folder}' takes parts of its base '{base}', which must be beside it: {error}"
        ) from error


def _part(tensor: str) -> str:
    """The part that a tensor belongs to, by its name."""
    return ".".join(tensor.split(".")[:-1][:2])


def _digests(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Part -> hash of its tensors."""
    groups = itertools.groupby(sorted(tensors, key=_part), key=_part)
    return {part: model_hash({}, {name: tensors[name] for name in names}) for part, names in groups}
