"""The audio of a run, had again from what it kept: every signal as it was scored.

Nothing is encoded: what a codec made of a clip lies in the run folder and is decoded again, brought to the
evaluation's sample rate, and its condition's delay is taken out. Reports and listening tests use this.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from baselines.codec import Codec, Rate
from baselines.registry import CODECS, unavailable
from baselines.rendered import Rendered
from evaluation.datasets.base import Clip
from evaluation.engine.coding import Coder, fit_length
from evaluation.engine.request import RenderedSpec
from evaluation.results import Condition
from evaluation.run.store import RunStore, coded_key, condition_delay
from qincodec import audio
from qincodec.audio import Audio
from qincodec.codec import check_device
from qincodec.core.errors import UserError
from qincodec.core.plugins import FAULTS


class RunAudio:
    """References and decoded clips of a run. Its methods may be called from several threads.

    Args:
        store: open run folder.
        folders: where the files of conditions that were decoded elsewhere are.
        weights: row label or codec -> path, for conditions made with other weights than the shipped ones.
        device: codecs decode on.

    Raises:
        UserError: no run yet, a folder for a condition that the run does not have, or no such device here.
    """

    def __init__(
        self,
        store: RunStore,
        *,
        folders: Sequence[RenderedSpec] = (),
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        run = store.read_run()
        if run is None:
            raise UserError(f"{store.folder} holds no run yet; start it with `evaluate --out {store.folder}`")
        self._store = store
        self._settings: dict[str, Any] = run["settings"]
        self.sample_rate = int(self._settings["sample_rate"])
        self._coder = Coder(store, self.sample_rate, self._settings["channels"])
        self._clips = store.read_clips()
        self._files = store.read_files()
        self._rendered = {
            (spec.label, spec.kbps): Rendered(spec.label, spec.folder, spec.kbps) for spec in folders
        }
        known = {(entry["codec"], entry["kbps"]) for entry in run["conditions"]}
        for label, kbps in self._rendered:
            if (label, kbps) not in known:
                rows = ", ".join(_name(*row) for row in sorted(known, key=str))
                raise UserError(f"--condition {_name(label, kbps)} is not in {store.folder}; it has {rows}")
        check_device(device)
        self._weights, self._device = weights or {}, device
        self._codecs: dict[str, Codec | str] = {}
        self._delays: dict[tuple[str, float | None], int] = {}
        self._lock = threading.RLock()

    def reference(self, clip: Clip) -> Audio:
        """(channels, samples) of the reference at `sample_rate`.

        Raises:
            UserError: the recording is gone, cannot be read, or is not what the run has scored.
        """
        return self._coder.reference(clip, f"the recording '{clip.path}' of clip '{clip.id}'")

    def decoded(self, condition: Condition, clip: Clip) -> Audio:
        """(channels, samples) the condition made of the clip, at `sample_rate`, as long as the reference.

        The condition's delay is taken out; zeros stand where the shifted signal has nothing.

        Raises:
            UserError: it failed, or cannot be had again; the message says why.
        """
        whole = torch.from_numpy(self.late(condition, clip))
        delay = self.delay(condition)
        return torch.nn.functional.pad(whole, (-delay, delay)).numpy()

    def late(self, condition: Condition, clip: Clip, notes: list[str] | None = None) -> Audio:
        """`decoded` with the condition's delay left in; what loading it changed is added to ``notes``."""
        row = self.row(condition, clip)
        if row is None:
            raise UserError(f"{self._label(condition)} has no result for this clip yet")
        if row["error"] is not None:
            raise UserError(f"{self._label(condition)} failed: {row['error']}")
        length = round(float(row["duration_s"]) * self.sample_rate)
        samples = self._decode(condition, clip, row, length, [] if notes is None else notes)
        return fit_length(torch.from_numpy(samples), length).numpy()

    def delay(self, condition: Condition) -> int:
        """What is taken out of a condition, samples: the median over the whole run, as it was scored."""
        key = (condition.codec, condition.kbps)
        with self._lock:
            if key not in self._delays:
                rows = (self.row(condition, clip) for clip in self._clips)
                self._delays[key] = condition_delay(rows, self._settings["align"])
            return self._delays[key]

    def _label(self, condition: Condition) -> str:
        return _name(condition.codec, condition.kbps)

    def row(self, condition: Condition, clip: Clip) -> dict[str, Any] | None:
        """What the run knows of the condition's coding of the clip; None: nothing yet."""
        files = self._files.get(f"{condition.codec}@{Rate(condition.nominal).label}", {})
        return self._store.row(coded_key(condition, self._settings, clip, files.get(clip.id)), "coded")

    def _decode(
        self, condition: Condition, clip: Clip, row: Mapping[str, Any], length: int, notes: list[str]
    ) -> Audio:
        rate_label = Rate(condition.nominal).label
        kept = self._store.decoded_path(condition.codec, rate_label, clip.id)
        if kept.is_file():
            return audio.resample(*audio.read(kept), self.sample_rate)
        if condition.identity.get("name") == "rendered":
            return self._from_folder(condition, clip, notes)
        try:
            encoded = self._coder.kept(str(row.get("encoded")))
        except OSError as error:
            raise UserError(
                f"what {self._label(condition)} encoded is gone ({row.get('encoded')}: {error.strerror}); run"
                " `evaluate` with the same options again to have it back"
            ) from error
        codec = self._codec(condition)
        try:
            return self._coder.decode(codec, [encoded], length)[0].numpy()
        except UserError:
            raise
        except FAULTS as error:  # of a third party's decoder, or of damaged bytes
            text = " ".join(str(error).split())
            raise UserError(
                f"{self._label(condition)} cannot be decoded again: {type(error).__name__}: {text}"
            ) from error

    def _from_folder(self, condition: Condition, clip: Clip, notes: list[str]) -> Audio:
        label = self._label(condition)
        folder = self._rendered.get((condition.codec, condition.kbps))
        if folder is None:
            raise UserError(
                f"{label} was decoded elsewhere and the run keeps no audio of it; say where it is with"
                f" --condition {label}=DIR, or evaluate with --save-audio"
            )
        known = self._files.get(f"{condition.codec}@{Rate(condition.nominal).label}", {}).get(clip.id)
        with self._lock:  # what a file was found for is remembered
            file = folder.find(clip.id, clip.path.name)
            if known is None or folder.fingerprint(file) != known:
                raise UserError(f"'{file}' is another file than the run scored; evaluate again or mend it")
        loaded = self._coder.rendered(folder, file, known, clip)
        notes += loaded.notes
        return loaded.audio

    def _codec(self, condition: Condition) -> Codec:
        """The codec that made a condition, loaded once; so is the reason why it cannot be."""
        with self._lock:
            if condition.codec not in self._codecs:
                try:
                    self._codecs[condition.codec] = self._load_codec(condition)
                except UserError as error:
                    self._codecs[condition.codec] = str(error)
            found = self._codecs[condition.codec]
        if isinstance(found, str):
            raise UserError(found)
        return found

    def _load_codec(self, condition: Condition) -> Codec:
        name = str(condition.identity.get("name", ""))
        path = self._weights.get(condition.codec) or self._weights.get(name)
        reason = unavailable(name, path)
        if reason:
            raise UserError(f"{condition.codec} cannot decode here: {reason}; or evaluate with --save-audio")
        codec: Codec = CODECS.load(name)(device=self._device, weights=path)
        if codec.sample_rate == 0:
            codec.sample_rate = self.sample_rate
        here = json.loads(json.dumps(codec.identity()))
        if here != condition.identity:
            parts = [part for part in condition.identity if condition.identity[part] != here.get(part)]
            part = parts[0] if parts else "settings"
            raise UserError(
                f"{condition.codec} was made with {part} {condition.identity.get(part)!r}, here it is"
                f" {here.get(part)!r}; give --weights {condition.codec}=PATH with those of the run, or"
                " evaluate again"
            )
        return codec


def _name(codec: str, kbps: float | None) -> str:
    return codec if kbps is None else f"{codec}@{Rate(kbps).label}"
