"""The audio of a run, restored from its folder: every signal as it was scored.

Nothing is encoded: encoded clips are read from the run folder, decoded again, and resampled to the
evaluation's sample rate. The condition's delay is removed. Reports and listening tests use this.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from baselines.codec import Codec
from baselines.registry import CODECS, unavailable
from baselines.rendered import Rendered
from evaluation.datasets.base import Clip
from evaluation.engine.coding import Coder, fit_length
from evaluation.engine.conditions import checked_identity
from evaluation.engine.request import RenderedSpec
from evaluation.records import Condition, label_of
from evaluation.rows import CodedRow
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
        folders: of conditions that were decoded elsewhere.
        weights: row label or codec -> path, for conditions that used other weights than the shipped ones.
        device: for the decoders.

    Raises:
        UserError: the run does not exist, has no such condition or codec, or the device does not exist here.
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
        self._store = store
        self._settings = run.settings
        self.sample_rate = run.settings.sample_rate
        self._coder = Coder(store, self.sample_rate, run.settings.channels)
        self._clips = store.read_clips()
        self._files = store.read_files()
        self._rendered = {
            (spec.label, spec.kbps): Rendered(spec.label, spec.folder, spec.kbps) for spec in folders
        }
        known = {(condition.codec, condition.kbps) for condition in run.conditions}
        for codec, kbps in self._rendered:
            if (codec, kbps) not in known:
                rows = ", ".join(label_of(*row) for row in sorted(known, key=str))
                raise UserError(
                    f"--condition {label_of(codec, kbps)} is not in {store.folder}; it has {rows}"
                )
        self._weights, self._device = weights or {}, device
        codecs = {name for c in run.conditions for name in (c.codec, c.identity.get("name", c.codec))}
        for name in self._weights:
            if name not in codecs:
                raise UserError(
                    f"--weights {name}=...: '{name}' is not a codec of {store.folder}; it has"
                    f" {', '.join(sorted(codecs, key=str))}"
                )
        check_device(device)
        self._codecs: dict[str, Codec | str] = {}
        self._delays: dict[str, int] = {}
        self._lock = threading.RLock()

    def reference(self, clip: Clip) -> Audio:
        """(channels, samples) of the reference at `sample_rate`.

        Raises:
            UserError: the recording is gone, cannot be read, or has changed since the run scored it.
        """
        return self._coder.reference(clip, f"the recording '{clip.path}' of clip '{clip.id}'")

    def decoded(self, condition: Condition, clip: Clip) -> Audio:
        """(channels, samples) of the clip after the condition, at `sample_rate`, as long as the reference.

        The condition's delay is removed; the shifted signal is zero-padded.

        Raises:
            UserError: it failed, or cannot be restored; the message gives the reason.
        """
        whole = torch.from_numpy(self.late(condition, clip))
        delay = self.delay(condition)
        return torch.nn.functional.pad(whole, (-delay, delay)).numpy()

    def late(self, condition: Condition, clip: Clip, notes: list[str] | None = None) -> Audio:
        """`decoded` with the condition's delay; changes on loading are added to ``notes``."""
        row = self.row(condition, clip)
        if row is None:
            raise UserError(f"{condition.label} has no result for this clip yet")
        if row.error is not None:
            raise UserError(f"{condition.label} failed: {row.error}")
        length = round(row.duration_s * self.sample_rate)
        samples = self._decode(condition, clip, row, length, [] if notes is None else notes)
        return fit_length(torch.from_numpy(samples), length).numpy()

    def delay(self, condition: Condition) -> int:
        """Delay removed from a condition, samples: the median over the whole run, as it was scored."""
        key = condition.point
        with self._lock:
            if key not in self._delays:
                rows = (self.row(condition, clip) for clip in self._clips)
                delays = (row.delay for row in rows if row is not None)
                self._delays[key] = condition_delay(delays, self._settings.align)
            return self._delays[key]

    def row(self, condition: Condition, clip: Clip) -> CodedRow | None:
        """Row of the clip coded by the condition; None if it is not coded yet."""
        file = self._files.get(condition.point, {}).get(clip.id)
        return self._store.row(coded_key(condition, self._settings, clip, file), CodedRow)

    def _decode(
        self, condition: Condition, clip: Clip, row: CodedRow, length: int, notes: list[str]
    ) -> Audio:
        kept = self._store.decoded_path(condition.point, clip.id)
        if kept.is_file():
            return self._kept(kept, length)
        if condition.identity.get("name") == "rendered":
            return self._from_folder(condition, clip, notes)
        try:
            encoded = self._store.read_encoded(row)
        except OSError as error:
            raise UserError(
                f"what {condition.label} encoded is gone ({row.encoded}: {error.strerror}); evaluate again "
                "with another --out"
            ) from error
        codec = self._codec(condition)
        try:
            return self._coder.decode(codec, [encoded], length)[0].numpy()
        except (UserError, KeyboardInterrupt):
            raise
        except FAULTS as error:  # from a third party's decoder, or damaged bytes
            text = " ".join(str(error).split())
            raise UserError(
                f"{condition.label} cannot be decoded again: {type(error).__name__}: {text}"
            ) from error

    def _kept(self, path: Path, length: int) -> Audio:
        """Audio that --save-audio has kept."""
        try:
            samples = audio.resample(*audio.read(path), self.sample_rate)
            if samples.shape[-1] != length:
                raise UserError(f"'{path}' has {samples.shape[-1]} samples instead of {length}")
        except UserError as error:
            raise UserError(
                f"the stored decoded audio is damaged: {error}; run `evaluate` with the same options and "
                "--save-audio to write it again"
            ) from error
        return samples

    def _from_folder(self, condition: Condition, clip: Clip, notes: list[str]) -> Audio:
        folder = self._rendered.get((condition.codec, condition.kbps))
        if folder is None:
            raise UserError(
                f"{condition.label} was decoded elsewhere and the run keeps no audio of it; give its folder "
                f"with --condition {condition.label}=DIR, or evaluate with --save-audio"
            )
        known = self._files.get(condition.point, {}).get(clip.id)
        with self._lock:  # finding a file changes shared state
            file = folder.find(clip.id, clip.path.name)
            if known is None or folder.fingerprint(file) != known.fingerprint:
                raise UserError(f"'{file}' is not the file that the run scored; restore it or evaluate again")
        loaded = self._coder.rendered(folder, file, known.text, clip)
        notes += loaded.notes
        return loaded.audio

    def _codec(self, condition: Condition) -> Codec:
        """The codec of a condition, or why it cannot be loaded; tried once."""
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
        if name not in CODECS and "code" in condition.identity:
            raise UserError(
                f"{condition.codec} is a codec in a Python file: give it with --plug-in FILE.py:CLASS, or"
                " evaluate with --save-audio"
            )
        reason = unavailable(name, path)
        if reason:
            raise UserError(f"{condition.codec} cannot decode here: {reason}; or evaluate with --save-audio")
        codec: Codec = CODECS.load(name)(device=self._device, weights=path)
        if codec.sample_rate == 0:
            codec.sample_rate = self.sample_rate
        here = checked_identity(name, codec, CODECS.digest(name))
        here |= {part: condition.identity[part] for part in codec.of_encoding if part in condition.identity}
        if here != condition.identity:
            parts = [part for part in condition.identity if condition.identity[part] != here.get(part)]
            part = parts[0] if parts else "settings"
            if part == "code":
                raise UserError(
                    f"{condition.codec} was made with another version of its file; give the old file, or "
                    "evaluate with another --out"
                )
            raise UserError(
                f"{condition.codec} was made with {part} {condition.identity.get(part)!r}, here it is"
                f" {here.get(part)!r}; give --weights {condition.codec}=PATH with those of the run, or"
                " evaluate again"
            )
        return codec
