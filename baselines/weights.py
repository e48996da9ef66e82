"""Pretrained files: their table, their cache folder, and the way to get one.

A file is searched in this order: the path given with ``--weights NAME=PATH`` (`use`), the cache folder
(`find`), its authors' official place (`obtain`). The cache is ``$QINCODEC_CACHE/weights``, or ``weights`` in
the user's cache folder. With ``QINCODEC_OFFLINE=1`` (or ``HF_HUB_OFFLINE=1``) nothing is ever downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from baselines import download
from baselines.weights_files import WeightsFile, digests, folder, memo_path, read_memo, remember, set_aside
from qincodec.core.console import Progress
from qincodec.core.errors import Unavailable, UserError, unknown

_DAC_RELEASES = "https://github.com/descriptinc/descript-audio-codec/releases/download"
#: Name, codec, file name here, and place among the releases.
_DAC_FILES = (
    ("dac-8kbps", "dac", "weights_44khz_8kbps_0.0.1.pth", "0.0.1/weights.pth"),
    ("dac-16kbps", "dac", "weights_44khz_16kbps_1.0.0.pth", "1.0.0/weights_44khz_16kbps.pth"),
    ("dac-24khz", "dac-24khz", "weights_24khz_8kbps_0.0.4.pth", "0.0.4/weights_24khz.pth"),
    ("dac-16khz", "dac-16khz", "weights_16khz_8kbps_0.0.5.pth", "0.0.5/weights_16khz.pth"),
)
_DAC = "Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, NeurIPS 2023 (Descript)"
_ENCODEC_FILES = "https://dl.fbaipublicfiles.com/encodec/v0"
_ENCODEC = "Defossez et al., High Fidelity Neural Audio Compression, 2022 (Meta)"
_OPENL3_FILES = "https://github.com/marl/openl3/raw/models"
#: Name, file name, git blob.
_OPENL3_CONTENTS = (
    ("openl3", "openl3_audio_mel256_env-v0_4_0.h5.gz", "34dbd7a91cdd2de6a3d6d036ac0a24d27d78e3cc"),
    ("openl3-music", "openl3_audio_mel256_music-v0_4_0.h5.gz", "15e483646fa3d4091a463f0affbb706e6bbbb098"),
)
_OPENL3 = "Cramer, Wu, Salamon and Bello, Look, Listen, and Learn More, ICASSP 2019 (New York University)"
_CLAP_FILES = "https://huggingface.co/laion/clap-htsat-unfused/resolve"
_UNSTATED = "not stated by its authors (their code is MIT)"
_HUGGING_FACE = "https://huggingface.co"
_WAVTOKENIZER = "Ji et al., WavTokenizer, ICLR 2025; converted by the Swiss AI Initiative"
_SNAC = "Siuzdak et al., SNAC: Multi-Scale Neural Audio Codec, 2024"


def _folder(
    name: str,
    repository: str,
    licence: str,
    attribution: str,
    tensors: str = "model.safetensors",
    revision: str = "main",
    sha256: str | None = None,
) -> Iterator[WeightsFile]:
    """The two files of a codec's model in a repository on Hugging Face."""
    url = f"{_HUGGING_FACE}/{repository}/resolve/{revision}"
    facts = (name, licence, attribution)
    yield WeightsFile(f"{name}-config", f"{name}-config.json", f"{url}/config.json", *facts)
    yield WeightsFile(name, f"{name}{Path(tensors).suffix}", f"{url}/{tensors}", *facts, sha256=sha256)


#: Every pretrained file the project can use, by name.
FILES: dict[str, WeightsFile] = {
    file.name: file
    for file in (
        *(
            WeightsFile(name, filename, f"{_DAC_RELEASES}/{place}", codec, "MIT", _DAC)
            for name, codec, filename, place in _DAC_FILES
        ),
        WeightsFile(
            "encodec-48khz",
            "encodec_48khz-7e698e3e.th",
            f"{_ENCODEC_FILES}/encodec_48khz-7e698e3e.th",
            "encodec",
            _UNSTATED,
            _ENCODEC,
            sha256_prefix="7e698e3e",
        ),
        WeightsFile(
            "encodec-24khz",
            "encodec_24khz-d7cc33bc.th",
            f"{_ENCODEC_FILES}/encodec_24khz-d7cc33bc.th",
            "encodec-24khz",
            _UNSTATED,
            _ENCODEC,
            sha256_prefix="d7cc33bc",
        ),
        WeightsFile(
            "mimi",
            "mimi-89091b3e.safetensors",
            "https://huggingface.co/kyutai/mimi/resolve/89091b3e466eb6a9d11e537bf26b144f194978f7/model.safetensors",
            "mimi",
            "CC BY 4.0",
            "Defossez et al., Moshi: a speech-text foundation model, 2024 (Kyutai)",
            size=384_649_828,
            sha256="bac7e85083dcded655d24eaadde7e6eea34c0da1b35fa2d284e641bd2b942a5e",
        ),
        *_folder("wavtokenizer", "swiss-ai/wavtokenizer-large-unify-40token", "MIT", _WAVTOKENIZER),
        *_folder("wavtokenizer-75", "swiss-ai/wavtokenizer-large-speech-75token-v2", "MIT", _WAVTOKENIZER),
        *_folder(
            "xcodec2",
            "HKUSTAudio/xcodec2-hf",
            "CC BY-NC 4.0",
            "Ye et al., Llasa: Scaling Train-Time and Inference-Time Compute, 2025",
        ),
        *_folder(
            "xcodec",
            "hf-audio/xcodec-hubert-general-balanced",
            "not stated by its authors",
            "Ye et al., Codec Does Matter, AAAI 2025; converted by Hugging Face",
        ),
        *_folder(
            "neucodec",
            "neuphonic/neucodec",
            "Apache-2.0",
            "Julian et al., Finite Scalar Quantization Enables Redundant and Transmission-Robust Neural Audio"
            " Compression at Low Bit-rates, 2025 (Neuphonic)",
        ),
        *_folder(
            "higgs-audio-v2",
            "eustlb/higgs-audio-v2-tokenizer",
            "Boson AI's own community licence",
            "Boson AI, Higgs Audio v2, 2025; converted by Hugging Face",
        ),
        *_folder(
            "snac",
            "hubertsiuzdak/snac_44khz",
            "MIT",
            _SNAC,
            "pytorch_model.bin",
            revision="ee450a3185df57275028352155544c3d7c4fd9ed",
            sha256="b0a676cbdc8d1cc53186f6d777bc956fb7932ceacdc657a4c3741646e9e7ead0",
        ),
        *_folder(
            "snac-32khz",
            "hubertsiuzdak/snac_32khz",
            "MIT",
            _SNAC,
            "pytorch_model.bin",
            sha256="bfee2f057c1e287443786bedab377b5176b430e911417683977b7af71ea3ba65",
        ),
        *_folder("snac-24khz", "hubertsiuzdak/snac_24khz", "MIT", _SNAC, "pytorch_model.bin"),
        *(
            WeightsFile(
                name, filename, f"{_OPENL3_FILES}/{filename}", "openl3", "CC BY 4.0", _OPENL3, git_blob=blob
            )
            for name, filename, blob in _OPENL3_CONTENTS
        ),
        WeightsFile(
            "clap",
            "clap-htsat-unfused-8fa0f1c6.bin",
            f"{_CLAP_FILES}/8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a/pytorch_model.bin",
            "clap",
            "Apache 2.0",
            "Wu, Chen, Zhang, Hui, Berg-Kirkpatrick and Dubnov, Large-Scale Contrastive Language-Audio"
            " Pretraining, ICASSP 2023 (LAION)",
        ),
    )
}

_explicit: dict[str, Path] = {}


def add(file: WeightsFile) -> None:
    """Register a file of a third-party codec or embedding, whose module calls this. It is listed, downloaded,
    verified and found like the project's own files.

    Raises:
        UserError: another file has the same name, or the same name in the cache.
    """
    for known in FILES.values():
        if known != file and (known.name == file.name or known.filename == file.filename):
            raise UserError(
                f"weights '{file.name}' ('{file.filename}') of {file.used_by}: {known.used_by} has weights"
                f" '{known.name}' ('{known.filename}'); take other names"
            )
    FILES[file.name] = file


def entry(name: str) -> WeightsFile:
    """The table's entry. Raises UserError for an unknown name, with similar ones."""
    if name not in FILES:
        raise unknown("weights", name, list(FILES))
    return FILES[name]


def cached_path(name: str) -> Path:
    """Path of `name` in the cache, whether it exists or not."""
    return folder() / entry(name).filename


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return _forbidden_by() is not None


def _forbidden_by() -> str | None:
    for variable in ("QINCODEC_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            return variable
    return None


def use(name: str, path: Path) -> None:
    """Use ``path`` for ``name`` in this process. It may differ from the released file: it has a digest.

    Raises:
        UserError: the name is unknown, or the file does not exist.
    """
    entry(name)
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"--weights {name}={path}: no such file; give the path of a weights file")
    _explicit[name] = path


def find(name: str) -> Path | None:
    """The file given by `use`, or a verified one in the cache, or None. Never touches the network.

    Raises:
        UserError: the cached file is not the released one (it is moved aside), or cannot be read.
    """
    file = entry(name)
    if name in _explicit:
        return _explicit[name]
    path = cached_path(name)
    if not path.is_file():
        return None
    found = digests(path)
    wrong = file.mismatch(path.stat().st_size, **found)
    if wrong is not None:
        aside = set_aside(path)
        raise UserError(
            f"'{path}' is not {name}: {wrong}; it was moved to '{aside}'; run `evaluate weights fetch {name}`"
        )
    first = read_memo(path)
    if file.published is None and first is not None and first["sha256"] != found["sha256"]:
        raise UserError(
            f"'{path}' is not the file that was first used here: its SHA-256 is {found['sha256'][:16]}..., it"
            f" was {first['sha256'][:16]}...; if you replaced it on purpose, delete '{memo_path(path)}',"
            f" otherwise delete both and run `evaluate weights fetch {name}`"
        )
    remember(path)
    return path


def obtain(name: str, progress: Progress | None = None) -> Path:
    """`find`, else download, with progress on stderr. A broken download continues where it stopped.

    Args:
        progress: called while downloading; None for a line on stderr.

    Raises:
        UserError: the file is not available; the message has the reason and the command or path that helps.
    """
    path = find(name)
    if path is not None:
        return path
    if is_offline():
        raise Unavailable(why_unavailable(name))
    file = entry(name)
    path = cached_path(name)
    download.fetch(file, path, progress)
    remember(path)
    return path


def why_unavailable(*names: str) -> str:
    """One line: these files are not in the cache, and how to get them."""
    held = " and ".join(f"'{entry(name).filename}'" for name in names)
    return (
        f"weights {' and '.join(names)} are not in the cache: run `evaluate weights fetch {' '.join(names)}`"
        f"{where_allowed()}, or put {held} into '{folder()}' (`evaluate weights` shows the addresses), or "
        "give"
        f" --weights {names[0]}=PATH"
    )


def where_allowed() -> str:
    """Addition to the advice to download, if the environment forbids it."""
    return f" where downloads are allowed (not with {_forbidden_by()}=1)" if is_offline() else ""


def files_of(user: str) -> list[WeightsFile]:
    """Files that codec or embedding ``user`` needs, in the order of the table."""
    return [file for file in FILES.values() if file.used_by == user]


def sha256(path: Path) -> str:
    """SHA-256 of a weights file, 64 hexadecimal digits, for identities; cached files are not read again.

    Raises:
        UserError: it cannot be read.
    """
    return digests(path)["sha256"]
