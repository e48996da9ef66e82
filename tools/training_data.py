"""Audio under clear licences to train weights on: fetched by package name, checked, unpacked, listed.

    python tools/training_data.py OUT [--only SOURCE] [--audio AUDIO] [--at-most MINUTES]

OUT gets ``packages/`` (what was fetched), ``audio/``, ``train.jsonl`` and ``held_out.jsonl``: a line per
file with path, source, sample_rate, channels, duration_s, kind, licence, author, url and package. Nothing is
installed. Versions and SHA-256 of the packages stand in this script. Only files under CC0, CC BY or MIT, or
in the public domain, are taken, at sample rates of 22.05 kHz and more. A source (an author, an instrument) is
in one of the two lists. A command that was interrupted goes on when it is given again.

It needs ``apt-get`` and ``dpkg-deb`` of Debian 12, ``pip``, and ``fluidsynth`` for the source ``rendered``.
AUDIO is a folder of real audio with ``train.jsonl`` and licences (see attribution.py): read where it is.

With --at-most, ``train.jsonl`` lists no more of a source than that, so that none outweighs the others: its
files in the order of the SHA-256 of their paths, up to the one that reaches MINUTES. The source ``real`` and
the held-out files stay whole. To change the limit, give the command again: nothing is fetched twice.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import io
import json
import math
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import attribution
import scores
import soundfile as sf
from packages import DataError, Package, Stanza, fetch, licensed, members, stanzas

MIN_RATE = 22050
MIN_SECONDS = 0.25
PIECES, PIECE_SECONDS, HELD_OUT_PIECES = 96, 60.0, 8
_AUDIO = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff")


class Pick(NamedTuple):
    """Files of a package (a glob over the whole path, ``*`` reaches over slashes) and whose they are."""

    pattern: str
    author: str
    licence: str
    url: str


class Source(NamedTuple):
    name: str
    kind: str  # speech, music, effects or drums
    package: Package
    #: Empty: as the package's debian/copyright says, file by file.
    picks: tuple[Pick, ...] = ()
    held_out: tuple[str, ...] = ()  # authors
    #: What paths in debian/copyright begin with and those in the package do not.
    root: str = ""


class Record(NamedTuple):
    """A line of a manifest."""

    path: str
    source: str
    sample_rate: int
    channels: int
    duration_s: float
    kind: str
    licence: str
    author: str
    url: str
    package: str


def _debian(name: str, version: str, sha256: str) -> Package:
    return Package("debian", name, version, f"{name}_{version.replace(':', '%3a')}_all.deb", sha256)


_KITS = _debian(
    "hydrogen-drumkits",
    "2017.09.19~dfsg-1",
    "6ea3c6df9a67762e2362f946c695e619859126b19fbccf32a2e8f07dfd03b2f4",
)
FONTS = (
    (
        _debian(
            "musescore-general-soundfont-lossless",
            "0.2.1-1",
            "ece0ce63dc4d4d44fecbd3ee6761b328e66c189892b2b369cbd8e79b4411a82b",
        ),
        "S. Christian Collins, Frank Wen and others (MuseScore_General)",
        "https://packages.debian.org/source/stable/musescore-general-soundfont",
    ),
    (
        _debian(
            "fluid-soundfont-gm",
            "3.1-5.3",
            "6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e",
        ),
        "Frank Wen and others (Fluid R3 GM)",
        "https://packages.debian.org/source/stable/fluid-soundfont",
    ),
)
SOURCES = (
    Source(
        "ljspeech",
        "speech",
        Package(
            "pypi",
            "coqui-tts",
            "0.24.3",
            "coqui_tts-0.24.3.tar.gz",
            "8683b8178d7647b2138f0cae3920ff7a63961118bbd4ba2ae9d205a0546af60d",
        ),
        (
            Pick(
                "*/tests/data/ljspeech/wavs/LJ*.wav",
                "Linda Johnson (LibriVox); cut by Keith Ito (LJ Speech)",
                "public domain",
                "https://keithito.com/LJ-Speech-Dataset/",
            ),
        ),
    ),
    Source(
        "drumkits",
        "drums",
        _KITS,
        (
            Pick(
                "*/drumkits/rumpf_kit_z01_h2*/*",
                "Emanuel Rumpf",
                "CC BY 3.0",
                "https://sourceforge.net/projects/rumpf-kit/",
            ),
            Pick(
                "*/drumkits/belofilms_GuitarStrums*/*",
                "Gabriel Verdugo Soto (belofilms)",
                "CC BY 3.0",
                "http://www.hydrogen-music.org",
            ),
        ),
    ),
    Source(
        "naev",
        "music",
        _debian("naev-data", "0.8.2-1", "a98849cacdfc72779e03ceb68f32af03cb3c3f382ba8b82e3299ef87254b454d"),
        held_out=("Zeropage",),
    ),
    Source(
        "hyperrogue",
        "music",
        _debian(
            "hyperrogue-music", "12.0q-1", "61ab9f4c2169442d85f42c42d26e80c1a18b93c741f3d44f1b9d83015904e7f7"
        ),
    ),
    Source(
        "gamine",
        "music",
        _debian("gamine-data", "1.6-1", "120e5aec63d23e5f46cd20d1aed100054a2d0663cfdd462c5e617743b775f6c7"),
    ),
    Source(
        "endless-sky",
        "effects",
        _debian(
            "endless-sky-data",
            "0.9.8-1.2",
            "e45835e05a11e84bb1a890a0ded390246a53b8318f21a25925aa70fa54f80c13",
        ),
    ),
    Source(
        "lomiri",
        "effects",
        _debian(
            "lomiri-sounds", "22.02-1", "d4a8fd0247e43e784ad75c11312d1f0e08a0ced6a4cfaadde3dcf118ab4e9abf"
        ),
        held_out=("Amber Forest", '"TMetso"', "Wayne Taylor"),
    ),
    Source(
        "ufoai-sound",
        "effects",
        _debian("ufoai-sound", "2.5-2", "0224308c10e1265581d1829f19eaef031175390fd0eafeb4a1d558ac6561ed4e"),
        root="base/",
    ),
    Source(
        "ufoai-music",
        "music",
        _debian("ufoai-music", "2.5-2", "2465d55e9dce75a3a2a1ad1c8ca67da84e251c04e0965d63a8562b2d9f76f9e6"),
        root="base/",
    ),
)


def _origin(source: Source, path: str, known: list[Stanza], url: str) -> Pick | None:
    if source.picks:
        return next((pick for pick in source.picks if fnmatch.fnmatchcase(path, pick.pattern)), None)
    found = licensed(path, known, source.root)
    return Pick(path, *found, url) if found else None


def _keep(content: bytes, out: Path) -> tuple[Path, int, int, float] | str:
    """Writes a sound to ``out`` (Vorbis and MP3 as they are, the rest as FLAC), or says why not."""
    try:
        info = sf.info(io.BytesIO(content))
    except sf.LibsndfileError:
        return "not readable"
    if info.samplerate < MIN_RATE:
        return f"below {MIN_RATE} Hz"
    if info.channels > 2:
        return "more than two channels"
    if info.duration < MIN_SECONDS:
        return f"shorter than {MIN_SECONDS} s"
    out.parent.mkdir(parents=True, exist_ok=True)
    if info.format in ("OGG", "MP3"):
        out.write_bytes(content)
    else:
        out = out.with_suffix(".flac")
        audio, rate = sf.read(io.BytesIO(content), dtype="int32", always_2d=True)
        sf.write(
            out, audio, rate, subtype="PCM_16" if info.subtype in ("PCM_16", "PCM_S8", "PCM_U8") else "PCM_24"
        )
    return out, info.samplerate, info.channels, info.duration


def unpack(source: Source, out: Path) -> list[Record]:
    """The records of a source whose audio now lies under ``out``."""
    file = fetch(source.package, out / "packages")
    content = {
        path: data
        for path, data in members(str(file), file)
        if path.lower().endswith(_AUDIO) or path.endswith(f"doc/{source.package.name}/copyright")
    }
    known: list[Stanza] = []
    url = ""
    if not source.picks:
        text = next(data for path, data in content.items() if path.endswith("/copyright")).decode(
            "utf-8", "replace"
        )
        known, match = stanzas(text), re.search(r"^Source:\s*(\S.*)", text, re.MULTILINE)
        url = match[1].strip() if match else f"https://packages.debian.org/{source.package.name}"
    records, refused = [], Counter[str]()
    for path, sound in content.items():
        if not path.lower().endswith(_AUDIO):
            continue
        pick = _origin(source, path, known, url)
        if pick is None:
            refused["licence"] += 1
            continue
        name = re.sub(r"[^\w.+-]", "_", "__".join(PurePosixPath(path).parts[-3:]))
        kept = _keep(sound, out / "audio" / source.name / name)
        if isinstance(kept, str):
            refused[kept] += 1
            continue
        written, rate, channels, seconds = kept
        records.append(
            Record(
                path=written.relative_to(out).as_posix(),
                source=f"{source.name}: {pick.author}",
                sample_rate=rate,
                channels=channels,
                duration_s=round(seconds, 4),
                kind=source.kind,
                licence=pick.licence,
                author=pick.author,
                url=pick.url,
                package=str(source.package),
            )
        )
    for reason, count in refused.items():
        print(f"  {source.name}: {count} files left out: {reason}", flush=True)
    return records


def rendered(out: Path) -> list[Record]:
    """Drawn pieces, played by the two sound fonts in turn. See scores.py for what is held out."""
    if not shutil.which("fluidsynth"):
        raise DataError("the source 'rendered' needs fluidsynth (apt-get install fluidsynth)")
    fonts = []
    for package, author, url in FONTS:
        font = out / "packages" / f"{package.name}.sf2"
        if not font.is_file():
            file = fetch(package, out / "packages")
            part = font.with_suffix(".part")
            part.write_bytes(
                next(
                    data
                    for path, data in members(str(file), file)
                    if path.endswith(".sf2") and len(data) > 1e6
                )
            )
            part.rename(font)
        fonts.append((font, package, author, url))
    records = []
    for number in range(PIECES):
        held_out = number < HELD_OUT_PIECES
        font, package, author, url = fonts[number % 2]
        name = out / "audio" / "rendered" / f"{'held_out' if held_out else 'piece'}-{number:03d}.flac"
        if not name.is_file():
            name.parent.mkdir(parents=True, exist_ok=True)
            score = scores.midi(number, PIECE_SECONDS, held_out)
            rate, channels, peak = (
                (44100, 48000)[number % 3 == 0],
                1 + (number % 4 < 2),
                10 ** (-(number % 7) / 10),
            )
            part = name.with_name(f"part-{name.name}")
            scores.render(score, font, part, rate, channels, peak)
            part.rename(name)
            print(f"  rendered: {number + 1} of {PIECES}", flush=True)
        info = sf.info(name)
        records.append(
            Record(
                path=name.relative_to(out).as_posix(),
                source=f"rendered: {'held-out' if held_out else 'other'} instruments",
                sample_rate=info.samplerate,
                channels=info.channels,
                duration_s=round(info.duration, 4),
                kind="rendered",
                licence="MIT",
                author=author,
                url=url,
                package=str(package),
            )
        )
    return records


def real(audio: Path, out: Path) -> list[Record]:
    """The allowed part of a folder of real audio, which stays where it is: a link leads there."""
    if not (audio / "train.jsonl").is_file():
        raise DataError(f"--audio {audio} does not hold train.jsonl; give the folder that does")
    link = out / "audio" / "real"
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(audio.resolve(), target_is_directory=True)
    lines = [json.loads(line) for line in (audio / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Record(
            path=f"audio/real/{line['path']}",
            source=f"real: {line['source']}",
            sample_rate=line["sample_rate"],
            channels=line["channels"],
            duration_s=line["duration_s"],
            kind="music" if line["source"] in ("music", "sonicpi") else "effects",
            licence=origin.licence,
            author=origin.author,
            url=origin.source,
            package="",
        )
        for line, (_, origin, note) in zip(lines, attribution.origins(audio), strict=True)
        if not note
    ]


def is_held_out(record: Record, authors: Iterable[str]) -> bool:
    return record.source == "rendered: held-out instruments" or record.author in authors


def capped(records: Iterable[Record], minutes: float) -> list[Record]:
    """The records, by path, with about ``minutes`` of each source: the last file may exceed them.

    The paths with the lowest SHA-256 are kept, so that the choice is the same everywhere. A folder of real
    audio (the source ``real``) is not capped."""
    kept, seconds = [], defaultdict[str, float](float)
    for record in sorted(records, key=lambda record: hashlib.sha256(record.path.encode()).digest()):
        source = record.source.partition(":")[0]
        if source == "real" or seconds[source] < 60 * minutes:
            seconds[source] += record.duration_s
            kept.append(record)
    return sorted(kept, key=lambda record: record.path)


def write(
    records: list[Record], out: Path, held_out_authors: Iterable[str], minutes: float | None = None
) -> None:
    """The two manifests, of `capped` training data if there are ``minutes``.

    Raises DataError where one source would be in both."""
    authors = set(held_out_authors)
    parts: dict[str, list[Record]] = {"train": [], "held_out": []}
    for record in records:
        parts["held_out" if is_held_out(record, authors) else "train"].append(record)
    both = {record.source for record in parts["train"]} & {record.source for record in parts["held_out"]}
    if both:
        raise DataError(f"in both lists: {', '.join(sorted(both))}")
    if minutes is not None:
        parts["train"] = capped(parts["train"], minutes)
    for name, part in parts.items():
        text = "".join(json.dumps(record._asdict(), ensure_ascii=False) + "\n" for record in part)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        for kind in sorted({record.kind for record in part}):
            seconds = [record.duration_s for record in part if record.kind == kind]
            print(f"{name}: {kind}: {len(seconds)} files, {sum(seconds) / 3600:.3f} h", flush=True)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0; give one, such as 25")
    return minutes


def main(arguments: list[str]) -> None:
    names = [source.name for source in SOURCES] + ["rendered", "real"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--only", choices=names, action="append", metavar="SOURCE", help=", ".join(names))
    parser.add_argument("--audio", type=Path, help="a folder of real audio, as the source 'real'")
    parser.add_argument(
        "--at-most",
        type=_minutes,
        metavar="MINUTES",
        help="limit for each source but real (the shipped weights: 25)",
    )
    options = parser.parse_args(arguments)
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"OUT {options.out} is a file; give a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    only = options.only or [name for name in names if name != "real" or options.audio]
    if "real" in only and not options.audio:
        parser.error("--only real needs --audio FOLDER")
    for name in only:
        done = options.out / f"{name}.records.json"
        if done.is_file() and name != "real":  # that costs nothing, and --audio may be another folder
            continue
        print(f"{name} ...", flush=True)
        source = next((source for source in SOURCES if source.name == name), None)
        if source:
            records = unpack(source, options.out)
        else:
            records = rendered(options.out) if name == "rendered" else real(options.audio, options.out)
        done.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    every = [
        Record(*values)
        for name in names
        if (done := options.out / f"{name}.records.json").is_file()
        for values in json.loads(done.read_text(encoding="utf-8"))
    ]
    held_out = [author for source in SOURCES for author in source.held_out]
    write(every, options.out, held_out, options.at_most)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DataError as error:
        sys.exit(f"training_data: {error}")
