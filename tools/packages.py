"""Packages of Debian, PyPI and npm: fetched, checked, read without installing; their licences, by Debian."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

_NESTED = (".h2drumkit", ".pk3")  # a gzipped tar, and a zip of a game
#: As Debian's copyright files write what is allowed.
_ALLOWED = re.compile(r"(CC0(-1\.0)?|CC-BY-[234]\.[05]|public-domain|PD|MIT|Expat)", re.I)


class DataError(Exception):
    """What is wrong with a package, and what to do."""


class Package(NamedTuple):
    registry: str  # debian, pypi or npm
    name: str
    version: str
    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.registry}: {self.name} {self.version}"


def fetch(package: Package, folder: Path) -> Path:
    """The package's file in ``folder``, fetched by its registry's client unless it is there, and checked."""
    file = folder / package.file
    if not file.is_file():
        print(f"fetching {package}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        pinned = f"{package.name}=={package.version}"
        command = {
            "debian": ["apt-get", "download", "-qq", f"{package.name}={package.version}"],
            "pypi": [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--no-binary",
                package.name,
                pinned,
            ],
            "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
        }[package.registry]
        if subprocess.run(command, cwd=folder, check=False).returncode or not file.is_file():
            raise DataError(
                f"{package} did not come by {' '.join(command)}: "
                f"put it at {file}, or name other sources by --only"
            )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != package.sha256:
        raise DataError(
            f"{file} has SHA-256 {found}, not the pinned {package.sha256}: delete it and try again"
        )
    return file


def members(name: str, data: bytes | Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each file of an archive (.deb, .tar.*, .tgz, .whl, .zip), and of those inside it.

    Nothing is written. Raises DataError for a path that leads out of the archive."""
    stream = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
    with stream:
        if name.endswith((".whl", ".zip", ".pk3")):
            with zipfile.ZipFile(stream) as packed:
                for entry in packed.infolist():
                    if not entry.is_dir():
                        yield from _member(name, entry.filename, packed.read(entry))
            return
        if not name.endswith(".deb"):
            yield from _tar(name, stream, "r|*")
            return
    command = ["dpkg-deb", "--fsys-tarfile", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as deb:
        assert deb.stdout
        yield from _tar(name, deb.stdout, "r|")
        deb.stdout.read()
    if deb.returncode:
        raise DataError(f"dpkg-deb cannot read {name}")


def _tar(name: str, stream: IO[bytes], mode: Literal["r|", "r|*"]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for info in tar:
            if info.isfile() and (file := tar.extractfile(info)):
                yield from _member(name, info.name, file.read())


def _member(archive: str, path: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    if path.startswith(("/", "\\")) or ".." in PurePosixPath(path.replace("\\", "/")).parts:
        raise DataError(f"{archive} has a file {path!r}, which leads out of it: not unpacked")
    path = str(PurePosixPath(path))
    if path.endswith(_NESTED):
        for inner, data in members(path, content):
            yield f"{path}/{inner}", data
    else:
        yield path, content


class Stanza(NamedTuple):
    globs: tuple[str, ...]
    author: str
    licence: str


def stanzas(text: str) -> list[Stanza]:
    """Of a debian/copyright file in the machine-readable format: which files, whose, under which licence."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields = {
            match[1].lower(): match[2]
            for match in re.finditer(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        }
        if "files" in fields:
            holders = re.sub(
                r"\(c\)|©|\b(19|20)\d\d\b[-, ]*(by )?", "", fields.get("copyright", ""), flags=re.I
            )
            author = "; ".join(line.strip(" ,-") for line in holders.splitlines() if line.strip(" ,-"))
            licence = (fields.get("license", "").splitlines() or [""])[0].strip()
            lines = (line.strip() for line in fields["files"].splitlines())  # some write spaces as they are
            found.append(Stanza((*fields["files"].split(), *lines), author, licence))
    return found


def licensed(path: str, known: Iterable[Stanza], root: str = "") -> tuple[str, str] | None:
    """(author, licence) of an installed file, where that licence is allowed.

    Globs are paths of the source package: one fits a file whose path ends with it. As the format says, the
    last stanza that fits decides. Where the author offers several licences, an allowed one is taken; where
    several hold at once ("and"), none is."""
    decides = None
    for stanza in known:
        for glob in (glob.removeprefix("./").removeprefix(root) for glob in stanza.globs if glob):
            if fnmatch.fnmatchcase(path, glob) or fnmatch.fnmatchcase(path, f"*/{glob.lstrip('*/')}"):
                decides = stanza
    if decides is None or re.search(r"\band\b", decides.licence):
        return None
    for licence in re.split(r",?\s+or\s+|,\s*", decides.licence):
        if decides.author and _ALLOWED.fullmatch(licence):
            return decides.author, licence
    return None
