"""Audio that another program has coded and decoded: any codec, as a folder of files."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from baselines.codec import check_kbps
from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.core.files import file_sha256

#: Greatest difference in length between a file and its recording or excerpt, in seconds.
LENGTH_TOLERANCE_S = 0.1

_EXCERPT = re.compile(r"@\d+(?:\.\d+)?s$")


@dataclass(frozen=True)
class RenderedClip:
    """A decoded clip.

    Attributes:
        audio: float32 (channels, samples) at the requested rate. A file of the excerpt is not cut or padded,
            so its length may differ from the excerpt's by `LENGTH_TOLERANCE_S`.
        path: its file.
        notes: changes to it (cut, resampled, mixed) and oddities, for the report.
    """

    audio: np.ndarray
    path: Path
    notes: tuple[str, ...]


class Rendered:
    """A folder of decoded files, one per recording or one per excerpt of it.

    A file belongs to a clip if it has, in this order of preference,

    1. the clip's id as its path in the folder (``music/violin@10s.wav`` for one excerpt);
    2. the recording's path in the folder (``music/violin.wav``);
    3. the same two as file names in any folder (``violin@10s.wav``, then ``violin.wav``, then
       the name of the reference file).

    Any suffix of audio files is accepted. Two files that fit equally well are an error; so is one file for
    two recordings.

    Args:
        label: the codec's name in tables.
        folder: with the files; it is listed once, now.
        kbps: the bitrate to show, total over the channels; None if it has none.

    Raises:
        UserError: the folder does not exist, or has no audio file.
    """

    def __init__(self, label: str, folder: str | Path, kbps: float | None = None) -> None:
        self.label = label
        self.folder = Path(folder)
        self.kbps = kbps
        if kbps is not None:
            check_kbps(kbps)
        if not self.folder.is_dir():
            raise UserError(
                f"rendered codec '{label}': no such folder '{folder}'; give one with decoded files"
            )
        self._by_path: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(self.folder).parts)
            if path.suffix.lower() in audio.EXTENSIONS and not hidden and path.is_file():
                relative = path.relative_to(self.folder).with_suffix("").as_posix()
                self._by_path[_normal(relative)].append(path)
                self._by_stem[_normal(path.stem)].append(path)
        if not self._by_path:
            raise UserError(
                f"rendered codec '{label}': no audio file in '{folder}'; looked for"
                f" {' '.join(sorted(audio.EXTENSIONS))}"
            )
        self._fingerprints: dict[Path, str] = {}
        self._recordings: dict[Path, str] = {}

    def find(self, clip_id: str, source_name: str) -> Path:
        """The file that belongs to a clip.

        Args:
            clip_id: the recording's path in its data set without suffix, followed by ``@<start>s`` for an
                excerpt that does not start at 0.
            source_name: file name of the reference recording.

        Raises:
            UserError: no file fits, or several do.
        """
        recording = _EXCERPT.sub("", clip_id)
        by_path = [clip_id, recording]
        by_stem = [PurePosixPath(clip_id).name, PurePosixPath(recording).name, Path(source_name).stem]
        for index, names in ((self._by_path, by_path), (self._by_stem, by_stem)):
            for name in dict.fromkeys(names):
                found = index.get(_normal(name), [])
                if len(found) > 1:
                    listed = ", ".join(f"'{path.relative_to(self.folder)}'" for path in found[:4])
                    raise UserError(
                        f"rendered codec '{self.label}': {len(found)} files fit clip '{clip_id}': {listed};"
                        f" keep one, or lay the folder out like the data set ('{recording}.wav')"
                    )
                if found:
                    return self._claim(found[0], recording)
        tried = " or ".join(f"'{name}'" for name in dict.fromkeys((*by_path, *by_stem)))
        raise UserError(
            f"rendered codec '{self.label}': nothing for clip '{clip_id}' in '{self.folder}'; looked for"
            f" {tried} with the suffix of an audio file"
        )

    def _claim(self, path: Path, recording: str) -> Path:
        """``path``, unless it was used for another recording: "a/1" and "b/1" must not share "1.wav"."""
        owner = self._recordings.setdefault(path, recording)
        if owner != recording:
            raise UserError(
                f"rendered codec '{self.label}': '{path.relative_to(self.folder)}' fits two recordings,"
                f" '{owner}' and '{recording}'; lay the folder out like the data set ('{recording}.wav')"
            )
        return path

    def load(
        self,
        clip_id: str,
        source_name: str,
        *,
        start_s: float,
        duration_s: float,
        source_duration_s: float,
        sample_rate: int,
        channels: int,
    ) -> RenderedClip:
        """The decoded clip, to compare with the excerpt of the reference.

        A file as long as the whole recording is cut like the excerpt; a file as long as the excerpt is not
        cut.

        Args:
            clip_id, source_name: see `find`.
            start_s, duration_s: the excerpt, in the reference recording.
            source_duration_s: length of the whole reference recording.
            sample_rate, channels: of the evaluation; the file is resampled and mixed to them.

        Raises:
            UserError: no file or several fit, it cannot be read, or its length is neither.
        """
        path = self.find(clip_id, source_name)
        info = audio.info(path)
        off_source = abs(info.duration_s - source_duration_s)
        off_excerpt = abs(info.duration_s - duration_s)
        if min(off_source, off_excerpt) > LENGTH_TOLERANCE_S + 1e-9:
            raise UserError(
                f"rendered codec '{self.label}': '{path}' lasts {info.duration_s:.3f} s, but clip"
                f" '{clip_id}' lasts {duration_s:.3f} s and its recording {source_duration_s:.3f} s; decode"
                f" the whole recording or the excerpt, to within {LENGTH_TOLERANCE_S} s"
            )
        notes: list[str] = []
        if off_source < off_excerpt:
            samples, file_rate = audio.read(path, start_s, duration_s)
            notes.append(f"cut from {start_s:g} s on")
        else:
            samples, file_rate = audio.read(path)
        missing = round(duration_s * file_rate) - samples.shape[1]
        if missing:
            notes.append(f"{abs(missing)} samples {'shorter' if missing > 0 else 'longer'} than the excerpt")
        if file_rate != sample_rate:
            notes.append(f"resampled from {file_rate} Hz")
            samples = audio.resample(samples, file_rate, sample_rate)
        if samples.shape[0] != channels:
            notes.append(f"mixed from {samples.shape[0]} to {channels} channels")
            samples = audio.mix(samples, channels)
        if info.lossy:
            notes.append(f"read from {info.lossy}")
        return RenderedClip(samples, path, tuple(notes))

    def fingerprint(self, path: Path) -> str:
        """First 16 hex digits of the SHA-256 of a file, for the keys of its scores; computed once."""
        if path not in self._fingerprints:
            self._fingerprints[path] = file_sha256(path)[:16]
        return self._fingerprints[path]


def _normal(name: str) -> str:
    """A normalised name: macOS decomposes accents, other systems do not."""
    return unicodedata.normalize("NFC", name)
