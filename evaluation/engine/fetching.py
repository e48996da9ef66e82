"""What an evaluation's codecs lack: told at once for all of them, and downloaded only when all is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines import weights, weights_files
from baselines.registry import missing_weights, unavailable, works_alone
from evaluation.datasets import check_data
from evaluation.engine.conditions import (
    CodecSpec,
    RenderedSpec,
    choose_metrics,
    known_codecs,
    parse_codecs,
    parse_conditions,
    parse_kbps,
    parse_weights,
)
from qincodec.core.console import Progress
from qincodec.core.errors import Unavailable, UserError

if TYPE_CHECKING:
    from evaluation.session import Request


@dataclass(frozen=True)
class Lack:
    """Why a codec cannot run here.

    Attributes:
        reason: in one line.
        files: names of the pretrained files that it lacks, of `baselines.weights.FILES`.
        alone: what of it could run, as typed after ``--codecs``.
    """

    reason: str
    files: tuple[str, ...] = ()
    alone: str | None = None

    def said(self, failed: str | None) -> str:
        """The reason; without the advice to download if a download has ``failed``."""
        if failed is None or not self.files:
            return self.reason
        held = " and ".join(f"'{weights.entry(f).filename}' ({weights.entry(f).url})" for f in self.files)
        return (
            f"weights {' and '.join(self.files)} are not in the cache and the download failed: put {held}"
            f" into '{weights_files.folder()}'"
        )


def find_lacks(specs: Sequence[CodecSpec]) -> dict[str, Lack]:
    """Row label -> why the codec cannot run here. Nothing is downloaded.

    Raises:
        UserError: an unknown codec.
    """
    known_codecs(specs)
    lacks = {}
    for spec in specs:
        reason = unavailable(spec.codec, spec.weights)
        if reason is None:
            continue
        try:
            files = tuple(missing_weights(spec.codec, spec.weights))
        except UserError:  # the reason says it
            files = ()
        lacks[spec.label] = Lack(reason, files, works_alone(spec.codec, spec.weights))
    return lacks


def refuse(
    specs: Sequence[CodecSpec],
    rendered: Sequence[RenderedSpec],
    lacks: Mapping[str, Lack],
    failed: str | None = None,
) -> Unavailable:
    """One line: what is missing of every codec, where it goes, and what can run now.

    Args:
        failed: why a download that was tried has failed; it is not advised again then.
    """
    parts = []
    for label, lack in lacks.items():
        if not lack.files:
            parts.append(f"{label}: {lack.reason}")
            continue
        held = " and ".join(f"'{weights.entry(f).filename}' ({weights.entry(f).url})" for f in lack.files)
        parts.append(f"{label} lacks {held}")
    files = list(dict.fromkeys(file for lack in lacks.values() for file in lack.files))
    text = f"{' and '.join(lacks)} cannot run here: {'; '.join(parts)}"
    if failed is not None:
        text += f"; the download failed ({failed})"
    if files:
        text += f"; put what is missing into '{weights_files.folder()}' under these names"
        if failed is None:
            text += f", or run `evaluate weights fetch {' '.join(files)}`{weights.where_allowed()}"
    here = [spec.label for spec in specs if spec.label not in lacks] + [spec.label for spec in rendered]
    alone = [lack.alone for lack in lacks.values() if lack.alone]
    if here:
        text += f"; --skip-unavailable evaluates {', '.join(dict.fromkeys(here))} now"
    if alone:
        text += f"; {', '.join(alone)} is here and works alone"
    return Unavailable(text if here or alone else f"{text}; `evaluate list` shows what can run here")


def fetch_weights(request: Request, progress: Progress) -> str | None:
    """Download what the codecs lack, once the whole request has been looked through.

    Returns:
        Why a download failed, where the request leaves out what cannot run; None if none did.

    Raises:
        UserError: the request is wrong, a codec cannot run whatever is downloaded, or a download failed.
    """
    from evaluation.session import check_numbers, use_files

    check_numbers(request)
    own = request.weights if isinstance(request.weights, Mapping) else parse_weights(request.weights)
    specs = parse_codecs(request.codecs, use_files(own, request.codecs))
    rendered = parse_conditions(request.conditions)
    parse_kbps(request.kbps)
    choose_metrics(request.metrics)
    lacks = find_lacks(specs)
    check_data(request.data, **request.dataset_options)
    if lacks and not request.skip_unavailable and not all(lack.files for lack in lacks.values()):
        raise refuse(specs, rendered, lacks)
    if weights.is_offline():
        return None
    try:
        for name in dict.fromkeys(file for lack in lacks.values() for file in lack.files):
            weights.obtain(name, progress)
    except UserError as error:
        if not request.skip_unavailable:
            raise refuse(specs, rendered, find_lacks(specs), getattr(error, "reason", str(error))) from error
        return str(error)
    return None
