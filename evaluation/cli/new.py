"""``evaluate new``: a package for a user's own codec."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from qincodec.core.errors import UserError

new_app = typer.Typer(add_completion=False, no_args_is_help=True)

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
dependencies = ["qincodec"]

[project.entry-points."qincodec.codecs"]
{name} = "{module}:{class_name}"

[tool.setuptools]
py-modules = ["{module}"]
"""

_CODEC = '''\
"""The codec "{name}", for `evaluate --codecs {name}`."""

import numpy as np

from baselines.codec import ClipCodec, Encoded, Rate


class {class_name}(ClipCodec):
    """Rounds every sample to 8 or 16 bits. It works as it is: replace it by your codec."""

    name = "{name}"
    version = "1"  # part of the key of each score: change it when the output changes
    sample_rate = 16000  # Hz, of input and output
    channels = (1, 2)

    def rates(self, channels=1):
        """Bitrates that it offers, total over the channels."""
        return [Rate(bits * self.sample_rate * channels / 1000, {{"bits": bits}}) for bits in (8, 16)]

    def encode_clip(self, audio, rate):
        """Encode audio: float32 from -1 to 1, (channels, samples)."""
        bits = rate.settings["bits"]
        levels = np.round(audio.clip(-1, 1) * (2 ** (bits - 1) - 1))
        payload = levels.astype(f"int{{bits}}").tobytes()
        return Encoded(payload, self.sample_rate, *audio.shape, side_info={{"bits": bits}})

    def decode_clip(self, encoded):
        """Decode to audio of the same shape, from nothing but `encoded`."""
        bits = encoded.side_info["bits"]
        levels = np.frombuffer(encoded.payload, f"int{{bits}}").reshape(encoded.channels, -1)
        return (levels / (2 ** (bits - 1) - 1)).astype(np.float32)
'''

_TEST = '''\
"""Test that the codec does what `baselines.codec.Codec` promises. Run `pytest`."""

from {module} import {class_name}

from baselines import check_codec


def test_it_keeps_the_promises():
    for measurement in check_codec({class_name}()):
        print(measurement)
'''


@new_app.callback()
def new() -> None:
    """Write a package that works as it is, with its test, as a start for your own."""


@new_app.command()
def codec(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the codec, as typed after --codecs.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the package. Default: ./NAME.")
    ] = None,
) -> None:
    """Write the package of a new codec: its class, the entry point that announces it, and a test."""
    from baselines.registry import CODECS

    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or keyword.iskeyword(module):
        raise UserError(
            f"'{name}' is not a valid name for a codec and its package; use small letters, digits and -, such"
            " as my-codec"
        )
    if name in CODECS:
        raise UserError(f"codec '{name}' already exists (`evaluate list`); choose another name")
    folder = out or Path(name)
    if folder.exists():
        raise UserError(f"'{folder}' exists; choose another --out, or remove it")
    class_name = "".join(part.capitalize() for part in module.split("_"))
    files = {
        "pyproject.toml": _PYPROJECT,
        f"{module}.py": _CODEC,
        f"test_{module}.py": _TEST,
    }
    try:
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text.format(name=name, module=module, class_name=class_name))
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written: {error.strerror}; choose another --out") from error
    print(
        f"{folder}: the codec is in {module}.py and works as it is.\n"
        f"Try it:      evaluate --codecs {folder / module}.py:{class_name},opus --kbps 128\n"
        f"Check it:    pip install pytest, then pytest {folder}\n"
        f"Install it:  pip install --editable {folder}"
    )
