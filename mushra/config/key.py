"""``key.json``: the conditions behind the opaque names of a test's stimuli. Never served."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mushra.config.locate import CONFIG_NAME, KEY_FORMAT, KEY_NAME
from qincodec.core.errors import UserError
from qincodec.core.folders import kind_of


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class KeySignal(_Model):
    """A stimulus. ``file`` is its path in the test's folder; unknown values are None."""

    condition: str
    codec: str | None = None
    kbps: int | float | None = None
    kbps_measured: float | None = None
    weights: str | None = None
    file: str | None = None
    sha256: str | None = None


class KeyTrial(_Model):
    """A page with grades: the origin of its item, and its signals by name."""

    clip: str | None = None
    recording: str | None = None
    category: str | None = None
    start_s: float | None = None
    duration_s: float | None = None
    gain_db: float | None = None
    reference: str | None = None
    signals: dict[str, KeySignal]


class Key(_Model):
    """All trials by id. A hand-written key may have only the conditions of its signals."""

    format: int | None = None
    sample_rate: int | None = None
    run: str | None = None
    seed: int | None = None
    trials: dict[str, KeyTrial]

    def condition(self, trial: str, name: str) -> str:
        """Condition of a name; the name itself, if the key does not have it."""
        return self._opened.get((trial, name), name)

    def knows(self, trial: str, name: str) -> bool:
        return (trial, name) in self._opened

    @cached_property
    def conditions(self) -> frozenset[str]:
        """All conditions of the key."""
        return frozenset(self._opened.values())

    @cached_property
    def _opened(self) -> dict[tuple[str, str], str]:
        return {
            (trial, name): signal.condition
            for trial, entry in self.trials.items()
            for name, signal in entry.signals.items()
        }


#: A key without trials: every name is its own condition.
NO_KEY = Key(trials={})


def read_key(path: Path, *, whole: bool = False) -> Key:
    """The key in a file.

    Args:
        path: of the file.
        whole: refuse a key without the paths of files that `mushra create` writes.

    Raises:
        UserError: the file does not exist, has another format, or is not a key.
    """
    try:
        key = Key.model_validate_json(path.read_bytes())
    except OSError as error:
        made = (
            "give a folder that `mushra create` made" if whole else "put the test's own there, or remove it"
        )
        if (kind := kind_of(path.parent)) and not (path.parent / CONFIG_NAME).is_file():
            made = f"{path.parent} is {kind}; {made}"
        raise UserError(f"cannot read key '{path}': {error.strerror or error}; {made}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"'{path}' is not a key of `mushra create`: {where + ': ' if where else ''}{first['msg']};"
            " create the test again, or give its own key"
        ) from error
    if key.format not in ((KEY_FORMAT,) if whole else (KEY_FORMAT, None)):
        raise UserError(
            f"'{path}' has format {key.format}, this version reads {KEY_FORMAT}; use the version that"
            " made the test"
        )
    for name, trial in key.trials.items():
        seen: dict[str, str] = {}
        for signal, what in trial.signals.items():
            if seen.setdefault(what.condition, signal) != signal:
                raise UserError(
                    f"'{path}': signals '{seen[what.condition]}' and '{signal}' of trial '{name}' are both"
                    f" '{what.condition}'; give each its own condition"
                )
    signals = [signal for trial in key.trials.values() for signal in trial.signals.values()]
    if whole and not (all(s.file for s in signals) and all(t.reference for t in key.trials.values())):
        raise UserError(
            f"'{path}' is not a key of `mushra create`: it does not name the files; put the {KEY_NAME}"
            " that was made with the test there"
        )
    return key
