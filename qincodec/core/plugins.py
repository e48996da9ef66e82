"""Named parts that load on first use: codecs, quantizers, metrics, embeddings.

A registry has a table of ``"module:attribute"`` strings for the project's own parts and an entry-point group
for those of third parties. It imports a part when its name is first used. A part may also come from a Python
file, ``FILE.py:NAME``, for as long as this process runs.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from qincodec.core.errors import UserError, did_you_mean, said, shown, unknown

#: Errors of a third-party part after which the program continues: neither `sys.exit` nor a panic of Rust
#: code, which PyO3 does not raise as an `Exception`, may end it. `KeyboardInterrupt` is passed on before this
#: is caught, also in worker threads, where parts raise it if Ctrl-C has ended one of their processes.
FAULTS = BaseException


_IN_A_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Source:
    """A Python file as it was read, and the name of a part in it. The file may have been edited since.

    Attributes:
        path: absolute.
    """

    path: Path
    name: str
    content: bytes

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256. It does not cover imported files."""
        return hashlib.sha256(self.content).hexdigest()[:16]


@dataclass(frozen=True)
class Loaded:
    """A part from a Python file.

    Attributes:
        part: the object of the requested name.
        given: ``FILE.py:NAME`` as typed.
        source: the code that was run.
    """

    part: Any
    given: str
    source: Source


def in_a_file(text: str) -> bool:
    """Whether ``text`` is ``FILE.py:NAME``.

    >>> in_a_file("./my_codec.py:MuLaw"), in_a_file("qincodec:model/")
    (True, False)
    """
    return _IN_A_FILE.fullmatch(text) is not None


def load_file(text: str) -> Loaded:
    """Run the Python file of ``FILE.py:NAME`` and return its object NAME.

    A file is run once per content. It can import files beside it, like a script.

    Raises:
        UserError: the file does not exist, fails to run, or lacks the name.
    """
    match = _IN_A_FILE.fullmatch(text)
    if match is None:
        raise UserError(f"'{text}' names no part of a file; give FILE.py:NAME, as in ./my_codec.py:MuLaw")
    path, name = Path(match["file"]).expanduser().absolute(), match["name"]
    try:
        source = Source(path, name, path.read_bytes())
    except OSError as error:
        raise UserError(f"'{text}': '{path}' cannot be read: {error.strerror}; give FILE.py:NAME") from error
    values = vars(_run_file(path, source.content))
    if name not in values:
        own = values["__name__"]  # not imported names
        classes = [k for k, of in values.items() if isinstance(of, type) and of.__module__ == own]
        raise UserError(
            f"'{text}': the file has no '{name}'; {did_you_mean(name, classes)}"
            f"its classes are {', '.join(classes) or 'none'}"
        )
    return Loaded(values[name], text, source)


def add_file(text: str, *registries: Registry) -> str:
    """Load a class of ``FILE.py:NAME`` into the registry of its kind; returns its name there.

    Raises:
        UserError: the file cannot be loaded, the class is of none of these kinds, or its name is taken.
    """
    loaded = load_file(text)
    for registry in registries:
        if registry.takes(loaded.part):
            return registry.add(loaded)
    kinds = " or ".join(registry.kind for registry in registries)
    lacks = sorted(getattr(loaded.part, "__abstractmethods__", ()))
    what = "a class of another kind" if isinstance(loaded.part, type) else shown(loaded.part)
    found = f"lacks {', '.join(lacks)}" if lacks else f"is {what}"
    raise UserError(f"'{text}' {found}; give a class of a {kinds}")


def _attribute(path: str) -> Any:
    """Of ``"module:attribute"``."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def _run_file(path: Path, content: bytes) -> Any:
    """The module of a file, under a unique name, because two files may have the same name.

    Exactly ``content`` runs, because scores are stored by its hash: the file may be edited meanwhile, and
    Python's ``__pycache__`` identifies it by a time in whole seconds.
    """
    module_name = f"qincodec_plug_in_{path.stem}_{hashlib.sha256(content).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look there
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))
    except KeyboardInterrupt:
        raise
    except FAULTS as error:
        del sys.modules[module_name]
        raise UserError(f"'{path}' does not run: {said(error)}; correct it") from error
    return module


class Registry:
    """Names of one kind of part.

    Args:
        kind: kind of part, in the singular, for messages ("codec").
        group: entry-point group of other packages' parts ("qincodec.codecs").
        base: class of all parts, as ``"module:attribute"``.
        builtin: name -> ``"module:attribute"`` of the project's own parts.
        named_by: attribute of a class with its name.
    """

    def __init__(
        self, kind: str, group: str, base: str, builtin: Mapping[str, str], named_by: str = "name"
    ) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._named_by = named_by
        self._builtin = dict(builtin)
        self._loaded: dict[str, Loaded] = {}

    def takes(self, part: object) -> bool:
        """Whether it is a complete class of this kind."""
        return (
            isinstance(part, type)
            and issubclass(part, _attribute(self._base))
            and not inspect.isabstract(part)
        )

    def add(self, loaded: Loaded) -> str:
        """Register a class from a file under its name, which is returned, until this process ends.

        Raises:
            UserError: it has no name, or another part has it.
        """
        name = getattr(loaded.part, self._named_by, None)
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"'{loaded.given}' has no name; set '{self._named_by}' in the class, as text")
        known = self._loaded.get(name)
        same = known is not None and known.given == loaded.given  # it may be an edited version
        if not same and name in self:
            other = f"'{known.given}'" if known else "an installed one"
            raise UserError(
                f"'{loaded.given}' is a {self.kind} of the name '{name}', and so is {other}; set another"
                f" '{self._named_by}' in the class"
            )
        self._loaded[name] = loaded
        return name

    def sources(self) -> list[Source]:
        """Sources of all parts that came from a file."""
        return [loaded.source for loaded in self._loaded.values()]

    def digest(self, name: str) -> str:
        """Digest of the file that a part came from, "" if it is installed."""
        return self._loaded[name].source.digest if name in self._loaded else ""

    def _third_party(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """All known names, the project's own first, in the order of their table."""
        return [*self._builtin, *sorted({*self._third_party(), *self._loaded} - {*self._builtin})]

    def ignored(self) -> list[tuple[str, str]]:
        """(name, why) of third-party parts that cannot be used because their name is taken."""
        taken = {name: point.value for name, point in self._third_party().items()}
        taken |= dict.fromkeys(self._builtin, "the project's own")
        found = sorted({(point.name, point.value) for point in entry_points(group=self.group)})
        return [
            (name, f"ignored: {value} has the name of {taken[name]}; give its entry point another one")
            for name, value in found
            if taken[name] != value
        ]

    def is_own(self, name: str) -> bool:
        """Whether it is one of the project's own parts."""
        return name in self._builtin

    def __contains__(self, name: str) -> bool:
        return name in self._builtin or name in self._loaded or name in self._third_party()

    def load(self, name: str) -> Any:
        """The object registered as ``name``.

        Raises:
            UserError: the name is unknown (similar names are suggested), or a third party's entry point fails
                to import.
        """
        if name in self._loaded:
            return self._loaded[name].part
        if name in self._builtin:
            return _attribute(self._builtin[name])
        point = self._third_party().get(name)
        if point is None:
            raise unknown(self.kind, name, self.names())
        try:
            return point.load()
        except KeyboardInterrupt:
            raise
        except FAULTS as error:  # an error in a plug-in must name the plug-in
            what = f"{self.kind} '{name}' ({point.value}) does not import"
            raise UserError(f"{what}: {said(error)}") from error
