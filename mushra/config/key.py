"""``key.json``: what the meaningless names of a test's stimuli stand for. Never served."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mushra.config.locate import KEY_FORMAT, KEY_NAME
from qincodec.core.errors import UserError


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class KeySignal(_Model):
    """A stimulus. ``file`` is its path in the test's folder; what is not known is None."""

    condition: str
    codec: str | None = None
    kbps: int | float | None = None
    kbps_measured: float | None = None
    weights: str | None = None
    file: str | None = None
    sha256: str | None = None


class KeyTrial(_Model):
    """A page with grades: where its item comes from, and its signals by name."""

    clip: str | None = None
    recording: str | None = None
    category: str | None = None
    start_s: float | None = None
    duration_s: float | None = None
    gain_db: float | None = None
    reference: str | None = None
    signals: dict[str, KeySignal]


class Key(_Model):
    """All trials by id. A key that somebody wrote by hand may have no more than its signals' conditions."""

    format: int | None = None
    sample_rate: int | None = None
    run: str | None = None
    seed: int | None = None
    trials: dict[str, KeyTrial]

    def condition(self, trial: str, name: str) -> str:
        """What a name stands for; itself, where the key does not know it."""
        return self._opened.get((trial, name), name)

    def knows(self, trial: str, name: str) -> bool:
        return (trial, name) in self._opened

    @cached_property
    def conditions(self) -> frozenset[str]:
        """All that names stand for."""
        return frozenset(self._opened.values())

    @cached_property
    def _opened(self) -> dict[tuple[str, str], str]:
        return {
            (trial, name): signal.condition
            for trial, entry in self.trials.items()
            for name, signal in entry.signals.items()
        }


#: Opens nothing: every name stands for itself.
NO_KEY = Key(trials={})


def read_key(path: Path, *, whole: bool = False) -> Key:
    """The key in a file.

    Args:
        path: of the file.
        whole: refuse a key without what `mushra create` writes about files: that of another tool.

    Raises:
        UserError: no such file, of another format, or no key.
    """
    try:
        key = Key.model_validate_json(path.read_bytes())
    except OSError as error:
        made = (
            "give a folder that `mushra create` made" if whole else "put the test's own there, or remove it"
        )
        raise UserError(f"cannot read key '{path}': {error.strerror or error}; {made}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"'{path}' is no key of `mushra create`: {where + ': ' if where else ''}{first['msg']}; create "
            "the test again, or give its own key"
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
                    f"'{path}': of trial '{name}', signals '{seen[what.condition]}' and '{signal}' are both"
                    f" '{what.condition}'; give each its own condition"
                )
    signals = [signal for trial in key.trials.values() for signal in trial.signals.values()]
    if whole and not (all(s.file for s in signals) and all(t.reference for t in key.trials.values())):
        raise UserError(
            f"'{path}' is no key of `mushra create`: it does not say which files are meant; put the"
            f" {KEY_NAME} that was made with the test there"
        )
    return key
