"""Serve a test's audio files and pictures under names that reveal nothing.

The address of a file is a keyed hash of its place in the test (page and signal), not of the file. So the
hidden reference and the reference have different addresses, although they are the same file. All sounds of a
page have one size (`mushra.containers`): if the files differ in size, padded copies are served. Other files
of the test's folder, such as the YAML and the key, are not served.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import mimetypes
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mushra.config.pages import (
    ANCHOR35,
    ANCHOR70,
    HIDDEN_REFERENCE,
    AbxPage,
    LikertPage,
    MushraPage,
    OwnTrial,
    Page,
    SpatialPage,
    TestConfig,
    Trial,
    VolumePage,
)
from mushra.containers import MEDIA_TYPES, NO_ANCHOR_BESIDE, common_size, container, padded
from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.core.files import replacing

#: Part of the names of cached anchors; must change with the code that makes them.
ANCHOR_VERSION = 1


@dataclass(frozen=True)
class Served:
    """A served file: its path and type, and its hash and size when the server started.

    ``container`` is from `mushra.containers`; ``sound`` is None for files that we cannot read.
    """

    path: Path
    mimetype: str
    sha256: str
    size: int
    container: str | None
    sound: Output | None


@dataclass(frozen=True)
class Output:
    """Channels and sample rate in Hz of sounds; 0: unknown."""

    channels: int
    sample_rate: int


class Stimuli:
    """All files of a test that listeners may load.

    Args:
        config: the test. Every file that it names must exist.
        secret: of the data base. It determines the addresses, which are the same after a restart and on all
            hosts.
        cache: folder for the anchors that pages need, and for padded copies; made if needed.

    Raises:
        UserError: a file is missing, is outside the test's folder (a link), or is not audio of which an
            anchor can be made; or a page with such an anchor has files of another container, which would
            reveal it.
    """

    def __init__(self, config: TestConfig, secret: str, cache: Path) -> None:
        self._config = config
        self._secret = secret.encode()
        self._cache = cache.resolve()  # Flask takes relative paths to be below the package
        self._root = config.root
        self._files: dict[str, Served] = {}
        self._known: dict[Path, Served] = {}
        for page in config.flat():
            for place, path in _places(page, config.root):
                self._add(page.id, place, self._inside(path))
            if isinstance(page, Trial):
                self._add_anchors(page)
            if isinstance(page, Trial | OwnTrial | LikertPage):
                self._even_out(page)

    def url(self, page: str, place: str) -> str:
        """Address, relative to the listening page, of the file at ``place`` of a page."""
        return f"stimuli/{self._token(page, place)}"

    def get(self, token: str) -> Served | None:
        """The file at an address."""
        return self._files.get(token)

    @cached_property
    def output(self) -> Output:
        """Largest number of channels of a sound, and most frequent rate."""
        sounds = [served.sound for served in self._known.values() if served.sound is not None]
        rates = Counter(sound.sample_rate for sound in sounds)
        return Output(
            max((sound.channels for sound in sounds), default=0),
            rates.most_common(1)[0][0] if rates else 0,
        )

    def hashes(self) -> dict[str, str]:
        """Path (relative to the test, if in it) -> SHA-256 of every served file."""
        return {
            (path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else path.name): (
                served.sha256
            )
            for path, served in self._known.items()
        }

    def replaced(self, page: str, value: Any) -> Any:
        """``value`` in which the file names of a spatial page are replaced by their addresses."""
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
                data = path.read_bytes()
            except OSError as error:
                raise UserError(
                    f"cannot read '{path}' of page '{page}': {error.strerror or error}; run `mushra check`"
                ) from error
            self._known[path] = Served(
                path,
                _media_type(path, data),
                hashlib.sha256(data).hexdigest(),
                len(data),
                container(data),
                _sound(path),
            )
        self._files[self._token(page, place)] = self._known[path]

    def _inside(self, path: str) -> Path:
        file = self._config.audio_path(path)
        if not file.resolve().is_relative_to(self._root):
            raise UserError(f"'{file}' is a link out of the test's folder; copy the file into it")
        if file.suffix.lower() in _NEVER:
            raise UserError(f"'{file}' is not a stimulus; `mushra check` shows where the test names it")
        return file

    def _sounds(self, page: Trial | OwnTrial | LikertPage) -> dict[str, Served]:
        """Token -> file of every sound of a page that has stimuli."""
        if isinstance(page, OwnTrial):
            own = [self._token(page.id, place) for place, _ in _places(page, self._root)]
            return {token: self._files[token] for token in own}
        names = list(page.stimuli)
        places = ["reference", "signal:reference"]
        if isinstance(page, Trial):
            names += [ANCHOR35, ANCHOR70]
        places += [f"{kind}:{name}" for name in names for kind in ("signal", "beside")]
        tokens = [self._token(page.id, place) for place in places]
        return {token: self._files[token] for token in tokens if token in self._files}

    def _add_anchors(self, page: Trial) -> None:
        if not page.anchors():
            return
        reference = self._inside(page.reference)
        for served in self._sounds(page).values():
            if served.container is None or served.container != self._known[reference].container:
                raise UserError(f"page '{page.id}': {NO_ANCHOR_BESIDE.format(served.path.name)}")
        for name in page.anchors():
            self._add(page.id, f"signal:{name}", self._anchor(reference, name))
            self._add(page.id, f"beside:{name}", reference)

    def _anchor(self, reference: Path, name: str) -> Path:
        """The anchor of a reference, in its container and word length, made once.

        An anchor that exceeds full scale is stored as float in WAV and refused in FLAC, which has no float.
        """
        known = self._known[reference]
        path = self._cache / f"{known.sha256[:32]}-{name}-{ANCHOR_VERSION}.{known.container}"
        if path.exists():
            return path
        from mushra.anchors import exceeds_pcm, make_anchor, too_loud_for_flac
        from mushra.create.stimuli import write_stimulus

        samples, sample_rate = audio.read(reference)
        anchor = make_anchor(samples, sample_rate, name)
        self._make_cache()
        if exceeds_pcm(anchor):
            if known.container == "flac":
                raise UserError(f"'{reference}': {too_loud_for_flac(name)}")
            audio.write(path, anchor, sample_rate, "float32")
        else:
            bits = 16 if audio.info(reference).codec == "PCM_16" else 24
            write_stimulus(path, anchor, sample_rate, bits, f"{known.sha256}{name}")
        return path

    def _even_out(self, page: Trial | OwnTrial | LikertPage) -> None:
        """Serve padded copies where the sounds of a page differ in size and can be padded."""
        sounds = self._sounds(page)
        size = common_size([served.size for served in sounds.values()])
        if any(served.container is None for served in sounds.values()):
            return
        for token, served in sounds.items():
            if served.size == size:
                continue
            path = self._cache / f"{served.sha256[:32]}-{size}.{served.container}"
            if not path.exists():
                self._make_cache()
                with replacing(path) as temporary:
                    temporary.write_bytes(padded(served.path.read_bytes(), size))
            self._files[token] = replace(served, path=path, size=size)

    def _make_cache(self) -> None:
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make folder '{self._cache}' for anchors: {error.strerror}") from error


def _sound(path: Path) -> Output | None:
    try:
        info = audio.info(path)
    except UserError:  # a picture, or a sound that only browsers decode
        return None
    return Output(info.channels, info.sample_rate)


def _media_type(path: Path, data: bytes) -> str:
    """Media type of a file: by its content if we know it, otherwise by its name."""
    known = container(data)
    if known is not None:
        return MEDIA_TYPES[known]
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    # An SVG or HTML file could run its own scripts as a page of this server.
    safe = kind.startswith(("audio/", "video/")) or kind in ("image/png", "image/jpeg", "image/webp")
    return kind if safe else "application/octet-stream"


def files(config: TestConfig) -> list[Path]:
    """Every file of the test's folder that its pages name, whether it exists or not."""
    found: dict[Path, None] = {}
    for page in config.flat():
        found.update(dict.fromkeys(config.audio_path(path) for _, path in _places(page, config.root)))
    return list(found)


def _is_below(root: Path, path: str) -> bool:
    """Whether a text is the path of a file that may be served."""
    try:
        file = (root / path).resolve()
        return file.is_file() and file.is_relative_to(root) and file.suffix not in _NEVER
    except (OSError, ValueError):
        return False


_NEVER = frozenset({".json", ".yaml", ".yml", ".sqlite", ".db", ".csv", ".html", ".py"})


def _places(page: Page | OwnTrial, root: Path) -> Iterator[tuple[str, str]]:
    """(place in the page, path) of every file that a page names; for a spatial page only existing files."""
    if isinstance(page, VolumePage):
        yield "signal:volume", page.stimulus
    if isinstance(page, Trial):
        yield "reference", page.reference
        # Neither the address of the hidden reference nor its place in all pairs of a page may reveal it.
        beside = (
            ["signal:reference"] if isinstance(page, MushraPage) else map("beside:{}".format, page.stimuli)
        )
        yield from ((place, page.reference) for place in beside)
    if isinstance(page, OwnTrial):
        yield from _places_of_pairs(page)
    if isinstance(page, Trial | LikertPage):
        yield from ((f"signal:{name}", path) for name, path in page.stimuli.items())
    if isinstance(page, LikertPage):
        yield from ((path, path) for path in page.pictures())
    if isinstance(page, SpatialPage):
        texts = _texts(page.model_dump(by_alias=True))
        yield from ((text, text) for text in texts if _is_below(root, text))


def pair_place(number: int, name: str, trial: int | None = None) -> str:
    """Place of a signal in the pair of that number; with ``trial``: as the X of that presentation.

    Each pair and each X has its own places, so that a signal of several pairs is not recognized.
    """
    return f"pair{number}:{name}" if trial is None else f"pair{number}x{trial}:{name}"


def _places_of_pairs(page: OwnTrial) -> Iterator[tuple[str, str]]:
    paths = dict(page.stimuli)
    if page.reference is not None:
        paths[HIDDEN_REFERENCE] = page.reference
        if not isinstance(page, AbxPage):
            yield "reference", page.reference
    for number, pair in enumerate(page.pairs()):
        for name in pair:
            yield pair_place(number, name), paths[name]
            for trial in range(page.trials if isinstance(page, AbxPage) else 0):
                yield pair_place(number, name, trial), paths[name]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str) and value:
        yield value
