"""Missing parts of an evaluation's codecs: reported together, and downloaded after all other checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baselines import weights, weights_files
from baselines.registry import missing_weights, unavailable, works_alone
from evaluation.engine.request import CodecSpec, ParsedRequest
from qincodec.core.console import Progress
from qincodec.core.errors import Unavailable, UserError


@dataclass(frozen=True)
class Lack:
    """Why a codec cannot run here.

    Attributes:
        reason: in one line.
        files: names of the pretrained files that it lacks, of `baselines.weights.FILES`.
        alone: the part that could run, as typed after ``--codecs``.
    """

    reason: str
    files: tuple[str, ...] = ()
    alone: str | None = None

    @property
    def held(self) -> str:
        """The files by their names, and where they come from."""
        entries = map(weights.entry, self.files)
        return " and ".join(f"'{entry.filename}' ({entry.url})" for entry in entries)

    def said(self, failed: str | None) -> str:
        """The reason, without the advice to download if a download has ``failed``."""
        if failed is None or not self.files:
            return self.reason
        text = f"weights {' and '.join(self.files)} are not in the cache and the download failed"
        return f"{text}: put {self.held} into '{weights_files.folder()}'"


def find_lacks(specs: Sequence[CodecSpec]) -> dict[str, Lack]:
    """Row label -> why the codec cannot run here. Nothing is downloaded."""
    lacks = {}
    for spec in specs:
        if spec.given is not None:
            continue
        reason = unavailable(spec.codec, spec.weights)
        if reason is None:
            continue
        try:
            files = tuple(missing_weights(spec.codec, spec.weights))
        except UserError:  # the reason says it
            files = ()
        lacks[spec.label] = Lack(reason, files, works_alone(spec.codec, spec.weights))
    return lacks


def refuse(request: ParsedRequest, lacks: Mapping[str, Lack], failed: str | None = None) -> Unavailable:
    """One line: what every codec lacks, where to put it, and what can run now.

    Args:
        failed: why a download failed; then the message does not suggest it again.
    """
    parts = [
        f"{label} lacks {lack.held}" if lack.files else f"{label}: {lack.reason}"
        for label, lack in lacks.items()
    ]
    files = list(dict.fromkeys(file for lack in lacks.values() for file in lack.files))
    text = f"{' and '.join(lacks)} cannot run here: {'; '.join(parts)}"
    if failed is not None:
        text += f"; the download failed ({failed})"
    if files:
        text += f"; put what is missing into '{weights_files.folder()}' under these names"
        if failed is None:
            text += f", or run `evaluate weights fetch {' '.join(files)}`{weights.where_allowed()}"
    here = [spec.label for spec in request.codecs if spec.label not in lacks]
    here += [spec.label for spec in request.rendered]
    alone = [lack.alone for lack in lacks.values() if lack.alone]
    if here:
        text += f"; --skip-unavailable evaluates {', '.join(dict.fromkeys(here))} now"
    if alone:
        text += f"; {', '.join(alone)} is here and works alone"
    return Unavailable(text if here or alone else f"{text}; `evaluate list` shows what can run here")


def fetch_weights(request: ParsedRequest, progress: Progress) -> str | None:
    """Download what the codecs lack, after everything else in the request was found.

    Returns:
        Why a download failed, if the request skips codecs that cannot run; else None.

    Raises:
        UserError: a download failed, or a codec cannot run even after it.
    """
    lacks = find_lacks(request.codecs)
    typed = request.typed
    if lacks and not typed.skip_unavailable and not all(lack.files for lack in lacks.values()):
        raise refuse(request, lacks)
    if weights.is_offline():
        return None
    try:
        for name in dict.fromkeys(file for lack in lacks.values() for file in lack.files):
            weights.obtain(name, progress)
    except UserError as error:
        if not typed.skip_unavailable:
            failed = getattr(error, "reason", str(error))
            raise refuse(request, find_lacks(request.codecs), failed) from error
        return str(error)
    return None
