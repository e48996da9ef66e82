"""The files beside the page. Their names have a hash of their content, so a page always matches its files: a
new report does not change a file of the old one, whose page is replaced last, as a whole."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import quote

from evaluation.report.html.media import file_title
from qincodec import audio
from qincodec.audio import Audio
from qincodec.core.errors import UserError
from qincodec.core.files import explain_os_errors, write_atomic

PAGE, FOLDER = "index.html", "assets"
#: Every page has it; a page without it is not a report and is never replaced.
GENERATOR = "evaluate html"

_OURS = re.compile(r".+-[0-9a-f]{12}\.(flac|webp|css|js|csv)|\.writing-.+")


class Assets:
    """Files of the report in ``folder``. Files of an old report are removed once the new page is written.

    Raises:
        UserError: the folder holds something other than a report.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; choose another folder with --out")
        page = folder / PAGE
        if page.exists():
            with explain_os_errors(page):
                ours = f'content="{GENERATOR}"'.encode() in page.read_bytes()[:2000]
        else:
            strangers = [entry for entry in folder.glob("*") if entry.name != FOLDER]
            ours = all(entry.name.startswith(".writing-") for entry in strangers)
        if not ours:
            raise UserError(f"{folder} holds files that are not a report; choose another folder with --out")

    @property
    def size(self) -> int:
        """Bytes of all files so far."""
        return sum(self._sizes.values())

    @property
    def count(self) -> int:
        """Number of files so far, for `forget_from`."""
        return len(self._sizes)

    def forget_from(self, count: int) -> None:
        """Keep only the first ``count`` files."""
        for name in list(self._sizes)[count:]:
            del self._sizes[name]

    def add(self, title: str, suffix: str, content: bytes) -> str:
        """Write a file; return its address for the page."""
        path = self._path(title, hashlib.sha256(content), suffix)
        write_atomic(path, content)
        return self._kept(path)

    def add_sound(self, title: str, samples: Audio, sample_rate: int) -> str:
        """Write a signal; return its address for the page.

        The format is 24-bit FLAC: every browser plays it, and its rounding, 144 dB below full scale, is
        inaudible. Peaks beyond full scale are refused (`evaluation.report.html.media.playback_gain`).
        """
        digest = hashlib.sha256(f"{sample_rate} {samples.shape}".encode())
        digest.update(audio.pcm_steps(samples, 24).astype("<i4").tobytes())
        path = self._path(title, digest, ".flac")
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, samples, sample_rate, "pcm24")
        return self._kept(path)

    def _path(self, title: str, digest: hashlib._Hash, suffix: str) -> Path:
        return self._folder / FOLDER / f"{file_title(title)}-{digest.hexdigest()[:12]}{suffix}"

    def _kept(self, path: Path) -> str:
        self._sizes[path.name] = path.stat().st_size
        return quote(f"{FOLDER}/{path.name}")

    def finish(self, page: str) -> Path:
        """Write the page, then remove the files that only the old page needed."""
        path = self._folder / PAGE
        write_atomic(path, page)
        with explain_os_errors(path):
            for entry in sorted((self._folder / FOLDER).iterdir()):
                if entry.name not in self._sizes and _OURS.fullmatch(entry.name) and entry.is_file():
                    entry.unlink()
        return path
