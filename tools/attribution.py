"""The attribution file of weights: source, author and licence of each file they were trained on.

    python tools/attribution.py AUDIO > qincodec/pretrained/small/ATTRIBUTION.csv
    python tools/attribution.py OUT/train.jsonl > ATTRIBUTION.csv
    python tools/attribution.py OUT/train.jsonl --summary

AUDIO is a folder of real audio, with ``train.jsonl``, ``LICENCES-esc10.txt`` and ``LICENCES-effects.md``;
OUT/train.jsonl is a manifest of training_data.py, whose table names the package of each file, too. Licences
are written as those files write them. With --summary, the command prints a manifest's files and minutes by
source, kind and licence, in Markdown, for a model card.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO


class Origin(NamedTuple):
    """Where a file comes from."""

    author: str
    licence: str
    source: str


#: Says of the files that the next weights are trained without why.
LEFT_OUT = "not for the next weights"

_CC0 = Origin("Sonic Pi's contributors", "CC0 1.0", "https://sonic-pi.net (its samples)")
_UNKNOWN = "Creative Commons, clause not established"
#: By the beginning of the file's name.
_MUSIC = {
    "456440__inspectorj": Origin("InspectorJ", "CC BY 3.0", "https://freesound.org/s/456440/"),
    "Karissa_Hobbs": Origin("Karissa Hobbs", "CC BY 3.0", "librosa's example recordings"),
    "Kevin_MacLeod": Origin("Kevin MacLeod (incompetech.com)", "CC BY 3.0", "librosa's example recordings"),
    "sorohanro": Origin("Mihai Sorohan", "CC BY 3.0", "librosa's example recordings"),
}
_SPEAKERS = {"speedenza": "Speedenza", "corsica-s": "Corsica_S"}

_ESC10 = re.compile(r"- \[(\S+\.ogg)\]:\s+clip derived from .+? \((https?://\S+)\) by (.+) \[(.+)\]")


def esc10(text: str) -> dict[str, Origin]:
    """Name without the class in front -> origin, of ESC-10's licence file."""
    found = (_ESC10.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1]: Origin(match[3], match[4], match[2]) for match in found if match}


def effects(text: str) -> dict[str, Origin]:
    """``folder__folder__name`` -> origin, of the credits of the effects: a table for each folder."""
    origins, folder = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            folder = line[3:].strip().removeprefix("./").rpartition("/")[0].replace("/", "__")
        elif line.startswith("|"):
            name, author, licence, *source = (cell.strip() for cell in line.strip().strip("|").split("|"))
            origins[f"{folder}__{name}"] = Origin(author, licence.strip("* "), " ".join(source).strip())
    return origins


def origins(audio: Path) -> list[tuple[str, Origin, str]]:
    """(path, origin, note) of every file of ``train.jsonl``. Raises KeyError for one without an origin."""
    clips = esc10((audio / "LICENCES-esc10.txt").read_text(encoding="utf-8"))
    credits = effects((audio / "LICENCES-effects.md").read_text(encoding="utf-8"))
    rows = []
    for line in (audio / "train.jsonl").read_text(encoding="utf-8").splitlines():
        path, part = (json.loads(line)[key] for key in ("path", "source"))
        name = Path(path).name
        if part == "esc10":
            origin = clips[name.partition("-")[2]]
        elif part == "effects":
            origin = credits[name]
        elif part == "speech":
            number, speaker, _ = name.split("__")
            origin = Origin(_SPEAKERS.get(speaker, speaker), _UNKNOWN, f"https://freesound.org/s/{number}/")
        elif part == "music":
            origin = next(value for begin, value in _MUSIC.items() if name.startswith(begin))
        else:
            origin = {"sonicpi": _CC0}[part]
        if not all(origin):
            raise KeyError(f"{path}: {origin}")
        doubtful = "Sampling" in origin.licence or origin.licence == _UNKNOWN
        rows.append((path, origin, LEFT_OUT if doubtful else ""))
    return rows


def write(audio: Path, stream: TextIO) -> None:
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file", *Origin._fields, "note"])
    table.writerows([path, *origin, note] for path, origin, note in origins(audio))


def listed(manifest: Path) -> Iterator[tuple[dict[str, Any], Origin]]:
    """Lines of a manifest of training_data.py with their origins. Raises KeyError for one without."""
    for line in manifest.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        origin = Origin(record["author"], record["licence"], record["url"])
        if not all(part and part.strip() for part in origin):
            raise KeyError(f"{record['path']}: {origin}")
        yield record, origin


def write_manifest(manifest: Path, stream: TextIO) -> None:
    """The same of a manifest of training_data.py. Raises KeyError for a file without an origin."""
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file", *Origin._fields, "package"])
    table.writerows([record["path"], *origin, record["package"]] for record, origin in listed(manifest))


def common_name(licence: str) -> str:
    """CC0 for CC0-1.0 and CC 0, CC BY 3.0 for CC-BY-3.0, public domain for PD."""
    name = re.sub(r"CC ?0( 1\.0)?", "CC0", licence.replace("-", " "))
    return "public domain" if name == "PD" else name


def summarize(manifest: Path, stream: TextIO) -> None:
    """Files and minutes of each source, kind and licence; then of each kind, of each licence, and of all."""
    every = [
        (record["kind"], record["package"] or record["source"], common_name(origin.licence), record)
        for record, origin in listed(manifest)
    ]
    print("| kind | source | licence | files | minutes |\n|---|---|---|---|---|", file=stream)
    for columns in ((0, 1, 2), (0,), (2,), ()):
        seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for *names, record in every:
            seconds[tuple(names[n] if n in columns else "all" for n in range(3))].append(record["duration_s"])
        for group in sorted(seconds):
            print(
                f"| {' | '.join(group)} | {len(seconds[group])} | {sum(seconds[group]) / 60:.1f} |",
                file=stream,
            )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("given", type=Path, metavar="AUDIO|MANIFEST")
    parser.add_argument("--summary", action="store_true", help="files and minutes, of a manifest")
    options = parser.parse_args(arguments)
    if not options.given.exists():
        parser.error(f"{options.given} does not exist: give a folder of audio or a manifest")
    if options.summary and options.given.is_dir():
        parser.error(f"--summary needs a manifest, {options.given} is a folder: give OUT/train.jsonl")
    table = summarize if options.summary else write if options.given.is_dir() else write_manifest
    table(options.given, sys.stdout)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyError as error:
        sys.exit(f"attribution: a file has no author, licence or source: {error}")
