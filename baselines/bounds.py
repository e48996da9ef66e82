"""Bounds on what a weights file may declare: a small file can describe, or unpack to, any size."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.lazy import Lazy
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = Lazy("torch")

#: Of a weights file; the largest released one has 400 MB.
_LARGEST_BYTES = 4 << 30


def refuse_packed(path: Path) -> None:
    """torch.save stores without packing; packed entries can unpack to any size.

    Raises:
        UserError: there are such entries, or the file is larger than any model's.
    """
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise UserError(f"weights '{path}' have {size} bytes, more than any model here; give a model's file")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or sum(entry.file_size for entry in entries) > size:
        raise UserError(
            f"weights '{path}' are no file of torch.save: it holds packed entries, or more than its size; get"
            " the file from its official place (`evaluate weights`)"
        )


def refuse_inflated(content: Any) -> None:
    """Refuse tensors of more values than are stored, which any use would make as large as they say."""
    todo, seen = [content], set()
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            todo += part.values()
        elif isinstance(part, list | tuple):
            todo += part
        elif isinstance(part, torch.Tensor) and (
            part.layout != torch.strided
            or part.device.type != "cpu"
            or part.numel() * part.element_size() > part.untyped_storage().nbytes()
        ):
            raise ValueError(f"a tensor of shape {tuple(part.shape)} that is not stored whole")


def empty_model(make: Callable[[], nn.Module]) -> nn.Module:
    """A model without values, which takes no memory whatever its size: to be compared with what is stored."""
    with torch.device("meta"):
        return make()


#: Of any number in a model's configuration, and of those that count layers, blocks or codebooks.
_LARGEST_NUMBER, _LARGEST_NUMBER_OF_PARTS = 1 << 20, 512


def refuse_numbers(value: Any, name: str = "") -> None:
    if isinstance(value, dict | list) and len(value) > 1000:
        raise ValueError(f"{name} has {len(value)} entries")
    if isinstance(value, dict):
        for key, part in value.items():
            refuse_numbers(part, str(key))
    elif isinstance(value, list):
        for part in value:
            refuse_numbers(part, name)
    counts = re.search(r"(^n_|num_.*(layers|codebooks|quantizers|heads|blocks))", name) is not None
    if isinstance(value, int | float) and value > (_LARGEST_NUMBER_OF_PARTS if counts else _LARGEST_NUMBER):
        raise ValueError(f"{name} is {value}")
