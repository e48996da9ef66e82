"""What is served of a test's files: audio and pictures, under names that reveal nothing.

The address of a file is a keyed hash of its place in the test (page and signal), not of the file, so that the
hidden reference and the reference, the same file, have different addresses. Nothing else of the test's folder
can be had: no YAML, no key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mushra.pages import (
    ANCHOR35,
    ANCHOR70,
    Bs1116Page,
    LikertMultiPage,
    LikertSinglePage,
    MushraPage,
    Page,
    PairedComparisonPage,
    SpatialPage,
    TestConfig,
    VolumePage,
)
from qincodec.errors import UserError

#: Part of the names of cached anchors; changes when what makes them does.
ANCHOR_VERSION = 1


@dataclass(frozen=True)
class Served:
    """A file that can be had: where it is, what it is, and its hash as it was when the server started."""

    path: Path
    mimetype: str
    sha256: str


class Stimuli:
    """All files of a test that listeners may have.

    Args:
        config: the test. Every file it names must be there.
        secret: of the data base; the addresses follow from it, so that they stay over restarts and hosts.
        cache: folder for the anchors that pages ask for; made if needed.

    Raises:
        UserError: a file is missing, outside the test's folder (a link), or no audio to make an anchor of.
    """

    def __init__(self, config: TestConfig, secret: str, cache: Path) -> None:
        self._config = config
        self._secret = secret.encode()
        self._cache = cache.resolve()  # Flask takes relative paths to be below the package
        self._root = config.root
        self._files: dict[str, Served] = {}
        self._known: dict[Path, Served] = {}
        for page in config.flat():
            for place, path in _places(page):
                self._add(page.id, place, self._inside(path))
            if isinstance(page, MushraPage | Bs1116Page | PairedComparisonPage):
                self._add_anchors(page)
            elif isinstance(page, SpatialPage):
                for value in _texts(page.model_dump(by_alias=True)):
                    if _is_below(self._root, value):
                        self._add(page.id, value, self._inside(value))

    def url(self, page: str, place: str) -> str:
        """Address, relative to the listening page, of what stands at ``place`` of a page."""
        return f"stimuli/{self._token(page, place)}"

    def get(self, token: str) -> Served | None:
        """The file of an address."""
        return self._files.get(token)

    def hashes(self) -> dict[str, str]:
        """Path (relative to the test, if in it) -> SHA-256 of every file that is served."""
        return {
            (path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else path.name): (
                served.sha256
            )
            for path, served in self._known.items()
        }

    def replaced(self, page: str, value: Any) -> Any:
        """``value`` with every text in it that names a file of a spatial page replaced by its address."""
        if isinstance(value, dict):
            return {key: self.replaced(page, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.replaced(page, inner) for inner in value]
        if isinstance(value, str) and self._token(page, value) in self._files:
            return self.url(page, value)
        return value

    def _token(self, page: str, place: str) -> str:
        message = f"{len(page)}:{page}{place}".encode()
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:18]).decode()

    def _add(self, page: str, place: str, path: Path) -> None:
        if path not in self._known:
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise UserError(
                    f"cannot read '{path}' of page '{page}': {error.strerror or error}; run `mushra check`"
                ) from error
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            # An SVG or HTML file would be a page of ours with scripts of its own.
            safe = kind.startswith(("audio/", "video/")) or kind in ("image/png", "image/jpeg", "image/webp")
            self._known[path] = Served(path, kind if safe else "application/octet-stream", digest)
        self._files[self._token(page, place)] = self._known[path]

    def _inside(self, path: str) -> Path:
        file = self._config.audio_path(path)
        if not file.resolve().is_relative_to(self._root):
            raise UserError(f"'{file}' is a link out of the test's folder; copy the file into it")
        if file.suffix.lower() in _NEVER:
            raise UserError(f"'{file}' is no stimulus; `mushra check` says where it is named")
        return file

    def _add_anchors(self, page: MushraPage | Bs1116Page | PairedComparisonPage) -> None:
        wanted = [(ANCHOR35, page.create_anchor35), (ANCHOR70, page.create_anchor70)]
        for name in [name for name, asked in wanted if asked]:
            reference = self._inside(page.reference)
            self._add(page.id, f"signal:{name}", self._anchor(reference, name))
            self._add(page.id, f"beside:{name}", reference)

    def _anchor(self, reference: Path, name: str) -> Path:
        """The anchor of a reference, in its word length (float where it exceeds full scale), made once."""
        digest = self._known[reference].sha256
        path = self._cache / f"{digest[:32]}-{name}-{ANCHOR_VERSION}.wav"
        if path.exists():
            return path
        from mushra.anchors import make_anchor
        from mushra.stimuli import write_stimulus
        from qincodec import audio

        samples, sample_rate = audio.read(reference)
        anchor = make_anchor(samples, sample_rate, name)
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make folder '{self._cache}' for anchors: {error.strerror}") from error
        bits = 16 if audio.info(reference).codec == "PCM_16" else 24
        if abs(anchor).max() < 1 - 2.0**-14:  # room for the dither
            write_stimulus(path, anchor, sample_rate, bits, f"{digest}{name}")
        else:
            audio.write(path, anchor, sample_rate, "float32")
        return path


def files(config: TestConfig) -> list[Path]:
    """Every file of the test's folder that its pages name, whether it is there or not."""
    found: dict[Path, None] = {}
    for page in config.flat():
        named = [path for _, path in _places(page)]
        if isinstance(page, SpatialPage):
            texts = _texts(page.model_dump(by_alias=True))
            named += [text for text in texts if _is_below(config.root, text)]
        found.update(dict.fromkeys(config.audio_path(path) for path in named))
    return list(found)


def _is_below(root: Path, path: str) -> bool:
    """Whether a text is the path of a file that may be served."""
    try:
        file = (root / path).resolve()
        return file.is_file() and file.is_relative_to(root) and file.suffix not in _NEVER
    except (OSError, ValueError):
        return False


_NEVER = frozenset({".json", ".yaml", ".yml", ".sqlite", ".db", ".csv", ".html", ".py"})


def _places(page: Page) -> Iterator[tuple[str, str]]:
    """(place in the page, path) of every file that a page names."""
    if isinstance(page, VolumePage):
        yield "signal:volume", page.stimulus
    if isinstance(page, MushraPage | Bs1116Page | PairedComparisonPage):
        yield "reference", page.reference
    # The hidden reference is a signal like the others and must not be known by its address; nor by standing
    # in all pairs of a page.
    if isinstance(page, MushraPage):
        yield "signal:reference", page.reference
    if isinstance(page, Bs1116Page | PairedComparisonPage):
        for name in page.stimuli:
            yield f"beside:{name}", page.reference
    if isinstance(page, MushraPage | Bs1116Page | PairedComparisonPage | LikertMultiPage | LikertSinglePage):
        for name, path in page.stimuli.items():
            yield f"signal:{name}", path
    if isinstance(page, LikertMultiPage | LikertSinglePage):
        for response in chain.from_iterable(page.response):
            for image in (response.img, response.img_selected, response.img_higher_response_selected):
                if image is not None:
                    yield image, image


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str) and value:
        yield value
