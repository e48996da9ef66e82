"""Environment of a run: versions, commit, machine, command."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import qincodec

#: Packages whose version can change a score.
PACKAGES = ("torch", "numpy", "scipy", "pandas", "soundfile", "soxr", "av", "bjontegaard")


def describe_environment(device: str, workers: int) -> dict[str, Any]:
    """Environment manifest as JSON values; every call on one machine returns the same."""
    import av
    import soundfile
    import torch

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    cuda = device.startswith("cuda") and torch.cuda.is_available()  # or on another host
    gpu = torch.cuda.get_device_name(device) if cuda else None
    return {
        "qincodec": qincodec.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_cores": os.cpu_count(),
        "device": device if gpu is None else f"{device} ({gpu})",
        "workers": workers,
        "packages": packages,
        "ffmpeg": {name: ".".join(map(str, v)) for name, v in sorted(av.library_versions.items())},
        "libsndfile": soundfile.__libsndfile_version__,
    }


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _commit() -> str | None:
    """Commit of the package's source tree, with "+changes" if it has uncommitted ones; None if installed."""
    root = Path(qincodec.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty=+changes",
        "--exclude=*",
    ]
    try:
        head = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() or None


def _processor() -> str:
    """Model name of the CPU, as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def unite_environments(environments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first environment, with those of other machines in its ``other_machines``."""
    found: list[dict[str, Any]] = []
    for environment in environments:
        for entry in (environment, *environment.get("other_machines", [])):
            plain = {name: value for name, value in entry.items() if name != "other_machines"}
            if plain and plain not in found:
                found.append(plain)
    if len(found) < 2:
        return found[0] if found else {}
    return {**found[0], "other_machines": found[1:]}
