"""Data sets whose folders and names identify recordings: ``vctk:FOLDER`` and similar.

Clips have the same ids as in a plain folder. A layout adds the recording, the unit of intervals, and the
category, and excludes files that are not clips of their own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from evaluation.datasets.files import Listing
from qincodec.core.errors import UserError


@dataclass(frozen=True)
class Layout:
    """One data set.

    Attributes:
        title: for people.
        shape: pattern of its file names, for messages.
        place: function from a path below the folder to `Placed`, to the reason why it is not a clip, or to
            None for a file that is not part of the data set.
        tables: reads the tables of the folder, for `place`.
    """

    title: str
    shape: str
    place: Callable[[PurePosixPath, Mapping[str, str | None]], Placed | str | None]
    tables: Callable[[Path], Mapping[str, str | None]] = lambda root: {}


@dataclass(frozen=True)
class Placed:
    """Recording and category of a file."""

    recording: str
    category: str | None


def find(name: str, folder: str, scan: Callable[[Path], Listing]) -> Listing:
    """The clips of a data set in a folder.

    Args:
        name: of `LAYOUTS`.
        folder: folder with the data set as unpacked.
        scan: lists a plain folder.

    Raises:
        UserError: the folder does not exist, or has no file of this data set.
    """
    layout, root = LAYOUTS[name], Path(folder).expanduser().absolute()
    if not folder or not root.is_dir():
        raise UserError(f"no such folder: '{folder}'; give {name}:FOLDER with the folder of {layout.title}")
    listing = scan(root)
    known = layout.tables(root)
    entries, excluded, others = [], list(listing.excluded), 0
    for entry in listing.entries:
        placed = layout.place(PurePosixPath(entry.path.relative_to(root).as_posix()), known)
        if isinstance(placed, Placed):
            entries.append(replace(entry, recording=placed.recording, category=placed.category))
        elif placed is None:
            others += 1
        else:
            excluded.append((entry.id, placed))
    if not entries:
        raise UserError(
            f"'{folder}' does not look like {layout.title}: no audio file has a name like {layout.shape}; "
            f"give the folder itself without {name}: to take all files"
        )
    notes = list(listing.notes)
    if others:
        are = "file that is not of {} is" if others == 1 else "files that are not of {} are"
        notes.append(f"{others} audio {are.format(layout.title)} left out")
    return Listing(name, entries, excluded, notes=notes)


def _vctk(path: PurePosixPath, _: Mapping[str, str | None]) -> Placed | str | None:
    match = re.fullmatch(r"([ps]\d+)_\d+(_mic[12])?", path.stem)
    if match is None or path.parent.name != match[1]:
        return None
    if match[2] == "_mic2":
        return "the same utterance by another microphone"
    return Placed(match[1], "speech")


_STEMS = ("mixture", "vocals", "drums", "bass", "other")


def _musdb(path: PurePosixPath, _: Mapping[str, str | None]) -> Placed | str | None:
    if path.name.endswith(".stem.mp4"):  # its first stream is the mixture
        return Placed(path.name.removesuffix(".stem.mp4"), "mixture")
    if path.stem in _STEMS and len(path.parts) > 1:
        return Placed(path.parent.name, path.stem)
    return None


def _daps(path: PurePosixPath, _: Mapping[str, str | None]) -> Placed | str | None:
    match = re.fullmatch(r"([fm]\d+)_script\d+_(.+)", path.stem)
    if match is None or path.parent.name != match[2]:
        return None
    return Placed(match[1], match[2])


def _fsd50k(path: PurePosixPath, labels: Mapping[str, str | None]) -> Placed | str | None:
    if not re.fullmatch(r"(FSD50K\.)?(dev|eval)_audio", path.parent.name) or not path.stem.isdigit():
        return None
    if path.stem not in labels:
        return "has no labels in the ground truth"
    return Placed(f"freesound-{path.stem}", labels[path.stem])


def _fsd50k_labels(root: Path) -> Mapping[str, str | None]:
    """The most general label of each file, which is the last."""
    found: dict[str, str | None] = {}
    tables = [path for path in sorted(root.rglob("*.csv")) if path.name in ("dev.csv", "eval.csv")]
    for table in tables:
        try:
            with table.open(encoding="utf-8", newline="") as stream:
                for row in (reader := csv.DictReader(stream)):
                    if row["labels"] is None:
                        raise csv.Error(f"line {reader.line_num} has no labels")
                    found[row["fname"]] = row["labels"].split(",")[-1] or None
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            raise UserError(
                f"'{table}' is not a ground truth of FSD50K: {error}; the table needs the columns fname and "
                "labels"
            ) from error
    if not found:
        raise UserError(
            f"'{root}' has no dev.csv or eval.csv of FSD50K; unpack FSD50K.ground_truth beside the audio"
        )
    return found


LAYOUTS = {
    "vctk": Layout("VCTK", "p225/p225_001_mic1.flac", _vctk),
    "musdb": Layout("MUSDB18", "train/Artist - Title/vocals.wav or train/Artist - Title.stem.mp4", _musdb),
    "daps": Layout("DAPS", "clean/f1_script1_clean.wav", _daps),
    "fsd50k": Layout("FSD50K", "FSD50K.eval_audio/37199.wav", _fsd50k, _fsd50k_labels),
}
