"""What the folders are that commands write, for messages to users who give the wrong one."""

from __future__ import annotations

from pathlib import Path

#: File by which a kind of folder is known -> the kind, with the commands that take it.
_KINDS = {
    "run.json": "a run of `evaluate`, for `evaluate report`, `evaluate html` and `mushra create --run`",
    "config.yaml": "a listening test, for `mushra check`, `mushra serve` and `mushra analyze`",
    "analysis.json": "an analysis of a test, for a browser (report.html) and `evaluate paper --listening`",
    "model.safetensors": "a model, for `qincodec encode --model` and `evaluate --weights qincodec=`",
    "training.json": "a training, whose models are in its folders */model",
    "tokens.json": "the output of `evaluate tokenize`",
    "paper.json": "the output of `evaluate paper`",
}


def kind_of(folder: str | Path) -> str:
    """The kind of a folder that a command wrote, and the commands that take it; "" for all others.

    Examples:
        >>> kind_of("/dev")
        ''
    """
    return next((what for name, what in _KINDS.items() if (Path(folder) / name).is_file()), "")


def instead(path: Path, needed: str) -> str:
    """What a path is that is not a folder with the file ``needed``, to follow "it"."""
    if not path.is_dir():
        return "is not a folder" if path.exists() else "does not exist"
    kind = kind_of(path)
    return f"is {kind}" if kind else f"has no {needed}"
