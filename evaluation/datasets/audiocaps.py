"""AudioCaps (Kim et al., 2019): its test list, with the user's folder of audio."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluation.datasets.files import File, ListedFile, Listing, low_rates
from evaluation.datasets.folder import no_audio, scan
from evaluation.records import LowRates
from qincodec.core.errors import UserError

_LISTS = ("test.csv", "test-2.0.csv")
_COLUMNS = ("audiocap_id", "youtube_id", "start_time")
_WHERE = "https://github.com/cdjkim/audiocaps"
_NAMES = "{youtube_id}_{start_time}, {audiocap_id}, {youtube_id} or Y{youtube_id}"


@dataclass
class _Listed:
    """A clip of the list: its excerpt of a video, and the ids of its captions."""

    youtube_id: str
    start_time: str
    audiocap_ids: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"{self.youtube_id}_{self.start_time}"

    def stems(self) -> list[str]:
        """Possible names of its file, the most specific first."""
        return [self.id, *self.audiocap_ids, self.youtube_id, f"Y{self.youtube_id}"]


def find(folder: str | Path, list_file: str | Path | None = None) -> Listing:
    """The clips of the list whose audio is in ``folder`` or below.

    A clip's id is always ``{youtube_id}_{start_time}``; its recording is the video. Clips without a file are
    in ``excluded``.

    Args:
        folder: has files named ``{youtube_id}_{start_time}``, ``{audiocap_id}`` (of any caption),
            ``{youtube_id}`` or ``Y{youtube_id}``, with any audio extension; if a clip has several, the first
            of these counts, then the first by path. Other files are ignored.
        list_file: AudioCaps' test.csv or test-2.0.csv (the same 975 clips with other captions); None: the
            first of these names in ``folder`` or in the folder that holds it.

    Raises:
        UserError: the list or the folder does not exist, the list lacks columns or has invalid ids, or no
            listed clip has audio.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"no such folder: '{folder}'; give audiocaps:FOLDER with the folder of the audio")
    table = _list_file(root, list_file)
    listed = _read_list(table)
    files, others = scan(root)
    if not files:
        raise UserError(no_audio(folder, others))
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    entries, excluded, spare = [], [], 0
    for clip in listed:
        paths = [path for stem in clip.stems() for path in by_stem.get(stem, [])]
        if not paths:
            excluded.append((clip.id, "no audio file"))
            continue
        spare += len(paths) - 1
        entries.append(ListedFile(clip.id, clip.id, paths[0], clip.youtube_id))
    if not entries:
        raise UserError(
            f"none of the {len(listed)} clips of '{table}' is among the {len(files)} audio files in"
            f" '{folder}' (the first is '{files[0].name}'); their names must be {_NAMES}"
        )
    notes = [f"{len(entries)} of the {len(listed)} clips of {table.name} have audio"]
    if spare:
        notes.append(f"{spare} more files of these clips are not used; each clip has one")
    return Listing(f"audiocaps-{table.stem}", entries, excluded, notes=notes)


def refuse_resampled(
    files: dict[Path, File], sample_rate: int, allow: bool
) -> tuple[dict[Path, File], LowRates | None]:
    """Files below ``sample_rate`` as errors, and a note on those that were allowed.

    AudioCaps circulates in copies at 16 and 32 kHz, which lack the high frequencies that codecs should code.

    Raises:
        UserError: more than half of the files are such copies.
    """
    low = {p: f for p, f in files.items() if f.info is not None and f.info.sample_rate < sample_rate}
    found = low_rates(files, sample_rate, ": resampled copies, allowed on request")
    if found is None or allow:
        return files, found
    if 2 * len(low) > len(files):
        raise UserError(
            f"{replace(found, end='').note}, such as '{next(iter(low))}': resampled copies of AudioCaps; get"
            " the audio at 44.1 or 48 kHz, evaluate at a lower --sample-rate, or allow them with"
            " --allow-resampled"
        )
    refused = {
        path: replace(
            file,
            info=None,
            error=f"'{path}' is a resampled copy ({file.info.sample_rate if file.info else 0} Hz, below"
            f" {sample_rate} Hz); get the original or give --allow-resampled",
        )
        for path, file in low.items()
    }
    return {**files, **refused}, None


def _list_file(root: Path, given: str | Path | None) -> Path:
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"no such list: '{given}'; give AudioCaps' test.csv ({_WHERE}, folder dataset)")
        return path
    for folder in (root, root.parent):
        for name in _LISTS:
            if (folder / name).is_file():
                return folder / name
    raise UserError(
        f"AudioCaps' list is neither in '{root}' nor in '{root.parent}' ({' or '.join(_LISTS)}): get test.csv"
        f" from {_WHERE} (folder dataset) and put it there or give --audiocaps-list CSV"
    )


def _read_list(table: Path) -> list[_Listed]:
    listed: dict[tuple[str, str], _Listed] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            missing = [column for column in _COLUMNS if column not in columns]
            if missing:
                raise UserError(
                    f"'{table}' is not a list of AudioCaps: no column {', '.join(missing)} among"
                    f" {', '.join(columns[:8]) or 'none'}; get test.csv from {_WHERE} (folder dataset)"
                )
            for row in reader:
                audiocap_id, youtube_id, start = ((row[column] or "").strip() for column in _COLUMNS)
                # Spreadsheets turn ids that begin with "-" into "#NAME?" and change the format of times.
                if not re.fullmatch(r"[A-Za-z0-9_-]+", youtube_id) or not re.fullmatch(r"\d+(\.0*)?", start):
                    raise UserError(
                        f"line {reader.line_num} of '{table}': '{youtube_id}' at '{start}' is not a YouTube "
                        f"id with a start in whole seconds; get the list again from {_WHERE} (folder dataset)"
                    )
                start = str(int(float(start)))
                clip = listed.setdefault((youtube_id, start), _Listed(youtube_id, start))
                clip.audiocap_ids.append(audiocap_id)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"AudioCaps' list '{table}' cannot be read: {error}") from error
    if not listed:
        raise UserError(f"AudioCaps' list '{table}' has no rows; get test.csv from {_WHERE} (folder dataset)")
    return list(listed.values())
