"""Named parts that load on first use: codecs, quantizers, metrics, embeddings.

A registry knows the project's own parts by a table of ``"module:attribute"`` strings and those of
third parties by an entry-point group, and imports neither until a name is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from qincodec.core.errors import UserError, said, unknown

#: What somebody's part may raise and the program goes on: neither `sys.exit` nor a panic of Rust code, which
#: is no `Exception` behind PyO3, may end it. `KeyboardInterrupt` is let through before this is caught, in
#: worker threads, too: there, parts raise it if Ctrl-C has ended a process of theirs.
FAULTS = BaseException


class Registry:
    """Names of one kind of part.

    Args:
        kind: what a name stands for, in the singular, for messages ("codec").
        group: entry-point group through which other packages add theirs ("qincodec.codecs").
        builtin: name -> ``"module:attribute"`` of the project's own parts.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)

    def _third_party(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """All known names, the project's own first, in the order of their table."""
        return [*self._builtin, *sorted(set(self._third_party()) - set(self._builtin))]

    def ignored(self) -> list[tuple[str, str]]:
        """(name, why) of third parties' parts that cannot be asked for, since their name is taken."""
        taken = {name: point.value for name, point in self._third_party().items()}
        taken |= dict.fromkeys(self._builtin, "the project's own")
        found = sorted({(point.name, point.value) for point in entry_points(group=self.group)})
        return [
            (name, f"ignored: {value} has the name of {taken[name]}; give its entry point another one")
            for name, value in found
            if taken[name] != value
        ]

    def is_own(self, name: str) -> bool:
        """Whether it is one of the project's own."""
        return name in self._builtin

    def __contains__(self, name: str) -> bool:
        return name in self._builtin or name in self._third_party()

    def load(self, name: str) -> Any:
        """The object registered as ``name``.

        Raises:
            UserError: the name is unknown (close names are suggested), or a third party's entry point
                does not import.
        """
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        point = self._third_party().get(name)
        if point is None:
            raise unknown(self.kind, name, self.names())
        try:
            return point.load()
        except KeyboardInterrupt:
            raise
        except FAULTS as error:  # a plug-in's own fault must name the plug-in
            what = f"{self.kind} '{name}' ({point.value}) does not import"
            raise UserError(f"{what}: {said(error)}") from error
