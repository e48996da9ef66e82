"""What each use of the project needs of its dependencies: packages and MB, in the environment that runs this.

    python benchmarks/install_size.py

A use is named with the dependencies of pyproject.toml that it imports; with each come the packages that it
requires. Sizes are those of the files that pip lists for a package, without compiled Python.
"""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

_TABLES = [
    "numpy",
    "scipy",
    "pandas",
    "soundfile",
    "soxr",
    "av",
    "matplotlib",
    "typer",
    "rich",
    "platformdirs",
    "pydantic",
    "jinja2",
]
_SCORES = [*_TABLES, "torch", "safetensors", "pyarrow", "bjontegaard", "pillow", "fsspec", "h5py"]
_SERVER = [*_TABLES, *["pyyaml", "flask", "waitress", "sqlalchemy", "segno", "nh3", "markdown-it-py"]]
USES = {
    "evaluate: classical codecs, QINCODEC, decoded files, OpenL3": _SCORES,
    "evaluate: with DAC, EnCodec, Mimi and CLAP": [*_SCORES, "transformers"],
    "train": [*_TABLES, "torch", "safetensors", "lightning-fabric", "scikit-learn", "pyyaml"],
    "serve and analyze listening tests": _SERVER,
    "create listening tests": [*_SCORES, *_SERVER, "pyloudnorm"],
}


@lru_cache
def installed(name: str) -> tuple[int, list[str]]:
    """Bytes of a package, and the names of those that it requires."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"package '{name}' is not installed; run `pip install .` first") from None
    # pip has noted the sizes of all but the programs that it wrote.
    size = sum(path.size or 0 for path in package.files or [] if path.suffix != ".pyc")
    wanted = [Requirement(line) for line in package.requires or []]
    return size, [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def required(names: list[str]) -> dict[str, int]:
    """Package -> bytes, of the packages named and of all that they require."""
    found: dict[str, int] = {}
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name not in found:
            found[name], more = installed(name)
            left += more
    return found


def main() -> None:
    given = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    everything = [Requirement(line).name for line in given]
    unknown = {name for names in USES.values() for name in names} - {*everything}
    if unknown:
        raise SystemExit(f"not among the dependencies of pyproject.toml: {', '.join(sorted(unknown))}")
    print("| use | dependencies | packages | MB |\n|---|---|---|---|")
    for use, names in {**USES, "everything: `pip install .`": everything}.items():
        sizes = required(names)
        print(f"| {use} | {len({*names})} | {len(sizes)} | {sum(sizes.values()) / 1e6:.0f} |")
    whole = required(everything)
    print("\n| dependency | MB that no other dependency needs |\n|---|---|")
    own = {
        name: whole.keys() - required([other for other in everything if other != name]) for name in everything
    }
    for name, lost in sorted(own.items(), key=lambda item: -sum(whole[one] for one in item[1])):
        print(f"| {name} | {sum(whole[one] for one in lost) / 1e6:.1f} |")


if __name__ == "__main__":
    main()
