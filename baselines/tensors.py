"""Third-party model files: read only as tensors, and refused if they declare too much or do not fit.

``torch.save``'s files are read with ``weights_only=True``, folders of transformers as safetensors: their code
is never run. A small file can describe, or unpack to, any size, so its declared sizes are checked before it
takes memory.
"""

from __future__ import annotations

import json
import math
import pickle
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

#: Greatest size of a weights file; the largest released one has 400 MB.
_LARGEST_BYTES = 4 << 30
#: Files of a model as transformers writes it.
FOLDER = ("config.json", "model.safetensors")
#: Greatest value of any number in a model's configuration, and of numbers of layers, blocks or codebooks.
_LARGEST_NUMBER, _LARGEST_NUMBER_OF_PARTS = 1 << 20, 512


def read_tensors(path: Path) -> Any:
    """Tensors and plain containers in a file of ``torch.save``. No code in it is run.

    Raises:
        UserError: it holds other Python objects, is damaged or something else, or cannot be read.
    """
    try:
        _refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_inflated(content)
        return content
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read weights '{path}': {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise UserError(
            f"weights '{path}' hold Python objects{what} instead of tensors alone, or are not weights: "
            "refused, no code in it was run; get the file from its official place (`evaluate weights`)"
        ) from error
    except Exception as error:  # any error of torch on bad data
        raise UserError(
            f"weights '{path}' are damaged or not a file of torch.save ({type(error).__name__}); delete"
            " the file and get it again, see `evaluate weights`"
        ) from error


def from_tensors(
    make: Callable[[], nn.Module], tensors: Mapping[str, Any], path: Path, name: str
) -> nn.Module:
    """The model from ``make``, filled with tensors of exactly its names and shapes, as float32.

    Raises:
        UserError: ``make`` fails, with the ``name`` of the model; or a tensor is missing, unknown, of another
            shape, or not finite, with the first one. Then nothing has taken memory.
    """
    try:
        _check_state(empty_model(make), tensors, path)
        model = make()
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"weights '{path}' are not a {name} model: {str(error).splitlines()[0]}") from error
    model.load_state_dict({name: tensors[name].float() for name in model.state_dict()})
    return model


def _check_state(model: nn.Module, tensors: Mapping[str, Any], path: Path) -> None:
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in expected]
    for name in expected.keys() & tensors.keys():
        given = tensors[name]
        if not isinstance(given, torch.Tensor) or given.shape != expected[name].shape:
            got = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
            problems.append(f"{name} is {got} instead of {tuple(expected[name].shape)}")
        elif not torch.isfinite(given).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(
            f"weights '{path}' do not fit {type(model).__name__}: {problems[0]}{more}; is it another model's"
            " file, or a part of one?"
        )


def parametrized(name: str) -> str:
    """Present name in torch's weight norm of a tensor formerly named ``..weight_g`` or ``..weight_v``."""
    name = re.sub(r"(^|\.)weight_g$", r"\1parametrizations.weight.original0", name)
    return re.sub(r"(^|\.)weight_v$", r"\1parametrizations.weight.original1", name)


def from_folder(kind: Any, folder: Path) -> nn.Module:
    """A model as transformers writes it: ``config.json`` and ``model.safetensors``.

    Raises:
        UserError: files are missing, damaged, or of another model.
    """
    for name in FOLDER:
        if not (folder / name).is_file():
            raise UserError(f"model folder '{folder}' has no {name}; give a folder as transformers writes it")
    _refuse_other_config(kind, *(folder / name for name in FOLDER))
    return from_pretrained(kind, folder, folder, local_files_only=True, use_safetensors=True)


def from_files(kind: Any, config: Path, tensors: Path) -> nn.Module:
    """`from_folder` for two files in different folders."""
    from safetensors.torch import load_file

    _refuse_other_config(kind, config, tensors)
    known = kind.config_class.from_json_file(config)
    return from_pretrained(kind, None, tensors, config=known, state_dict=load_file(tensors))


def _refuse_other_config(kind: Any, path: Path, stored_at: Path) -> None:
    """Refuse numbers larger than in any model, or more values than are stored, before any take memory."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError("it is larger than a megabyte")
        config = json.loads(path.read_text(encoding="utf-8"))
        _refuse_numbers(config)
        with safe_open(stored_at, "pt") as tensors:
            stored = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        empty = empty_model(lambda: kind(kind.config_class(**config)))
        described = sum(part.numel() for part in empty.parameters())
        if described > stored:
            raise ValueError(f"a model of {described} values, of which {stored} are stored")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"model '{stored_at}' with '{path}' cannot be read: {error}; get the files again"
        ) from error
    except Exception as error:  # transformers raises what it likes
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"'{path}' is not a {kind.__name__}: {text}; get the file again") from error


def from_pretrained(kind: Any, given: Path | None, place: Path, **options: Any) -> nn.Module:
    """``kind.from_pretrained`` that fills every tensor or none.

    Args:
        kind: a model class of transformers.
        given: its first argument.
        place: of the weights, for messages.

    Raises:
        UserError: loading fails, or tensors are missing, unknown or of another shape.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, found = kind.from_pretrained(
            given, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32, **options
        )
    except Exception as error:  # transformers raises what it likes
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"weights '{place}' are not those of a {kind.__name__}: {first}") from error
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if wrong:
        raise UserError(
            f"weights '{place}' are not those of a {kind.__name__}: {len(wrong)} tensors are missing,"
            f" unknown or of another shape, {wrong[0]} for one; `evaluate weights` names the official files"
        )
    loaded: nn.Module = model
    return loaded


# ---- bounds --------------------------------------------------------------------------------------------


def _refuse_packed(path: Path) -> None:
    """Refuse packed entries, which torch.save never writes, because they can unpack to any size."""
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise UserError(
            f"weights '{path}' have {size} bytes, which is more than any model here; give a model's file"
        )
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith(".data/extern_modules") for entry in entries):
        raise UserError(
            f"weights '{path}' are a package of torch.package, which is program code and is not run: give the"
            " file of tensors alone; DAC writes it as weights.pth with save_to_folder, or with"
            " save(path, package=False)"
        )
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or sum(entry.file_size for entry in entries) > size:
        raise UserError(
            f"weights '{path}' are not a file of torch.save: it holds packed entries, or more than its size; "
            "get"
            " the file from its official place (`evaluate weights`)"
        )


def _refuse_inflated(content: Any) -> None:
    """Refuse tensors of more values than are stored, because any use would expand them."""
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
    """A model without values, which takes no memory, to compare with the stored tensors."""
    with torch.device("meta"):
        return make()


def _refuse_numbers(value: Any, name: str = "") -> None:
    if isinstance(value, dict | list) and len(value) > 1000:
        raise ValueError(f"{name} has {len(value)} entries")
    if isinstance(value, dict):
        for key, part in value.items():
            _refuse_numbers(part, str(key))
    elif isinstance(value, list):
        for part in value:
            _refuse_numbers(part, name)
    counts = re.search(r"(^n_|num_.*(layers|codebooks|quantizers|heads|blocks))", name) is not None
    if isinstance(value, int | float) and value > (_LARGEST_NUMBER_OF_PARTS if counts else _LARGEST_NUMBER):
        raise ValueError(f"{name} is {value}")
