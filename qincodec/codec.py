"""The codec: an autoencoder and, between its halves, a quantizer that was fitted offline.

Two channels are coded as mid and side, the side with fewer codebooks (`qincodec.stereo`). With any other
number of channels, each is coded alone. Bitrates count all channels. A signal of any length passes through in
chunks (`qincodec.autoencoder.CHUNK_FRAMES`) that overlap by the receptive field.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from qincodec import architectures, model_folder, stereo
from qincodec.audio import resampled_length
from qincodec.autoencoder import CHUNK_FRAMES, Autoencoder
from qincodec.bitstream import (
    ENTROPY_CODED,
    ENTROPY_CODED_MID_SIDE,
    MODEL_ID_BYTES,
    NO_CODE,
    PACKED,
    PACKED_MID_SIDE,
    QncHeader,
    Side,
    bits_per_frame,
)
from qincodec.code_tables import CodeTables
from qincodec.core.errors import UserError, shown, unknown
from qincodec.quantizers import QUANTIZERS
from qincodec.quantizers.base import Quantizer
from qincodec.quantizers.rvq import RVQ
from qincodec.rows import decode_rows, encode_rows
from qincodec.transform_path import NOISE_FRAMES

#: ``load("untrained:paper-d32")``: random weights, the same every time, for tests and benchmarks.
UNTRAINED = "untrained:"
_UNTRAINED_CODEBOOKS = 14  # 24 kbps, the highest rate of the authors' examples
#: How far beyond the lowest and highest rate a bitrate may be asked for: "16" finds 15.5, 48 does not.
_RATE_TOLERANCE = 1.1
#: Frames between the mid's noise and the side's: the same in both would be in the left channel only.
_SIDE_NOISE_FRAMES = NOISE_FRAMES // 2

#: Numbers of codebooks: of one channel, of each of several, or of mid and side.
Codebooks = int | tuple[int, ...]


class Qincodec:
    """Encodes audio to codes and decodes codes to audio.

    Attributes:
        autoencoder: in evaluation mode.
        quantizer: None in a model whose quantizer is not fitted yet: it gives latents and no codes.
        tables: what codes are entropy-coded by; None in a model that packs them.
        trained: False for random weights.
        finetuned: whether the decoder was trained on quantized latents (stage 3); None: not recorded.
        sample_rate: of the audio, Hz.
        hop_length: samples per frame.
        frame_rate: frames per second.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        quantizer: Quantizer | None = None,
        *,
        tables: CodeTables | None = None,
        trained: bool = True,
        finetuned: bool | None = None,
    ) -> None:
        config = autoencoder.config
        if quantizer is not None and quantizer.dim != config.latent_dim:
            raise UserError(
                f"quantizer of {quantizer.dim} dimensions does not fit latents of {config.latent_dim};"
                " fit it on latents of this autoencoder"
            )
        self.autoencoder = autoencoder.eval()
        self.quantizer = None if quantizer is None else quantizer.eval()
        if tables is not None and (quantizer is None or tables.codebook_sizes != quantizer.codebook_sizes):
            raise UserError("code tables are of other codebooks than the quantizer's: count its own codes")
        self.tables = tables
        self.trained, self.finetuned = trained, finetuned
        self.sample_rate, self.hop_length = config.sample_rate, config.hop_length
        self.frame_rate = autoencoder.frame_rate

    @property
    def device(self) -> torch.device:
        return self.autoencoder.window.device

    # ---- identity and storage --------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        config: dict[str, Any] = {
            "trained": self.trained,
            "autoencoder": architectures.to_dict(self.autoencoder.config),
            "quantizer": None if self.quantizer is None else self.quantizer.config(),
        }
        if self.finetuned is not None:  # models from before this field keep their hash
            config["finetuned"] = self.finetuned
        tensors = {f"autoencoder.{name}": t for name, t in self.autoencoder.state_dict().items()}
        if self.quantizer is not None:
            tensors |= {f"quantizer.{name}": t for name, t in self.quantizer.state_dict().items()}
        for n, frequencies in enumerate(self.tables.frequencies if self.tables else []):
            tensors[f"tables.{n}"] = torch.from_numpy(frequencies).int()
        return config, tensors

    @cached_property
    def hash(self) -> str:
        """Identifies configuration and weights, 64 hexadecimal digits; as they were when first asked for."""
        return model_folder.model_hash(*self._state())

    @property
    def model_id(self) -> bytes:
        """The beginning of the hash, as .qnc files contain it."""
        return bytes.fromhex(self.hash)[:MODEL_ID_BYTES]

    def save(self, folder: str | Path, *, half: bool = False, base: str | None = None) -> str:
        """Write the model to a folder that `load` takes; returns its hash.

        With ``half``, matrices are rounded to float16, for half the size: another model, with another hash,
        that scores a little differently and does not decode this one's files. With ``base``, the name of a
        model's folder beside ``folder``, parts that are equal to that model's are left there; same hash.
        """
        return model_folder.save(folder, *self._state(), half=half, base=base)

    # ---- rates -----------------------------------------------------------------------------------------

    def rates(self, channels: int = 1) -> list[tuple[Codebooks, float]]:
        """(codebooks, kbit/s in total over the channels) of every rate, ascending.

        With two channels the codebooks are those of mid and side: three fifths as many for the side, rounded
        up, and more above the rate at which the mid has all. A quantizer with one rate has it for both.
        With `tables` the kbit/s are those of the audio they were counted on: other audio takes more or less.
        """
        most = self._quantizer.num_codebooks
        counts = range(1, most + 1) if self._quantizer.prefix_decodable else [most]
        rates: list[Codebooks] = list(counts)
        if channels == 2:
            pairs = [self.codebooks(n, 2) for n in counts]
            rates = [(n, of_side) for n, of_side in pairs]
            rates += [(most, n) for n in range(pairs[-1][1] + 1, most + 1)]
        sizes, per_frame = self._quantizer.codebook_sizes, self.tables and self.tables.bits_per_frame
        bits = [0] + [per_frame(n) if per_frame else bits_per_frame(sizes[:n]) for n in range(1, most + 1)]
        totals = (sum(bits[count] for count in self.codebooks(n, channels)) for n in rates)
        return [(n, total * self.frame_rate / 1000) for n, total in zip(rates, totals, strict=True)]

    def codebooks_for(self, kbps: float, channels: int = 1) -> Codebooks:
        """Codebooks whose bitrate is nearest to ``kbps`` by ratio; the lower at a tie.

        Raises:
            UserError: more than 10 % below the lowest or above the highest rate.
        """
        rates = self.rates(channels)
        low, high = rates[0][1], rates[-1][1]
        if not low / _RATE_TOLERANCE <= kbps <= high * _RATE_TOLERANCE:
            allowed = f"{low:.1f} to {high:.1f} kbps" if len(rates) > 1 else f"{high:.1f} kbps only"
            raise UserError(
                f"{kbps:g} kbps is not available: the model codes {channels} channel(s) at {allowed}"
            )
        return min(rates, key=lambda rate: (abs(math.log(rate[1] / kbps)), rate[1]))[0]

    def codebooks(self, asked: Codebooks | None, channels: int) -> tuple[int, ...]:
        """Number of codebooks of each channel (of two: of mid and side) for the number that is asked for."""
        most = self._quantizer.num_codebooks
        if not isinstance(asked, tuple) and asked and channels == 2 and self._quantizer.prefix_decodable:
            asked = asked, -(-3 * asked // 5)
        counts = asked if isinstance(asked, tuple) else (most if asked is None else asked,) * channels
        if len(counts) != channels or not most >= counts[0] >= max(1, counts[-1]) or counts[-1] < 0:
            raise UserError(
                f"num_codebooks {asked} of {channels} channel(s): give 1 to {most}, or for two channels a"
                " pair of numbers, of the mid and of the side; that of the side must not be larger"
            )
        return counts

    # ---- coding ----------------------------------------------------------------------------------------

    def encode(
        self,
        audio: torch.Tensor,
        *,
        kbps: float | None = None,
        num_codebooks: Codebooks | None = None,
        predictions: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Codes of the audio; of two channels those of mid and side.

        On the CPU every channel is encoded alone, so that the codes of an item do not depend on the
        others. On other devices they are batched, and may differ in near ties of the quantizer.

        Args:
            audio: (batch, channels, samples) at ``sample_rate``, float32, nominal range [-1, 1].
            kbps: bitrate in total over the channels; the nearest there is is taken.
            num_codebooks: instead of ``kbps``; of two channels that of the mid or those of both. None: all.
            predictions: of two channels, how much of each item's side follows from its mid, in eighths
                (`qincodec.stereo.best_predictions`); `decode` needs the same. None: nothing.

        Returns:
            (batch, channels, num_codebooks, ceil(samples / hop_length)), int64. Of two channels the first
            has the codes of the mid, the second those of the side: -1 in the codebooks that it lacks, in all
            of them where the side is silent, as it is where both channels are the same.

        Raises:
            UserError: audio of another shape, empty or not finite, a rate the model does not have, or a
                model without quantizer.
        """
        rows, channels = self._rows(audio), audio.shape[1]
        if kbps is not None and num_codebooks is not None:
            raise UserError("give kbps or num_codebooks, not both")
        if kbps is not None:
            num_codebooks = self.codebooks_for(kbps, channels)
        counts = self.codebooks(num_codebooks, channels) * len(audio)
        if channels == 2:
            of_items = stereo.checked_predictions(predictions, len(audio))
            rows = stereo.to_mid_side(rows.unflatten(0, (-1, 2)), of_items).flatten(0, 1)
            sounding = rows.any(1).tolist()
            counts = tuple(n if sounding[i] or i % 2 == 0 else 0 for i, n in enumerate(counts))
        frames = self.autoencoder.num_frames(rows.shape[1])
        codes = torch.full((len(rows), max(counts), frames), NO_CODE, device=self.device)
        for part in self._passes([i for i, n in enumerate(counts) if n], frames):
            coded = torch.cat(list(encode_rows(*self._parts, [rows[part]], [counts[i] for i in part])), 2)
            codes[part, : coded.shape[1]] = coded
        return codes.unflatten(0, audio.shape[:2])

    def decode(
        self,
        codes: torch.Tensor,
        num_samples: int | None = None,
        *,
        predictions: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Audio of the codes.

        Args:
            codes: (batch, channels, num_codebooks, frames), integers, as `encode` gives them; fewer codebooks
                are a lower rate.
            num_samples: length to trim the last frame to.
            predictions: what `encode` had.

        Returns:
            (batch, channels, num_samples or frames * hop_length), float32; may exceed [-1, 1].

        Raises:
            UserError: codes of another shape or outside their codebooks, or a length that does not fit.
        """
        if codes.ndim != 4 or 0 in codes.shape:
            raise UserError(
                f"codes must have shape (batch, channels, num_codebooks, frames), got {tuple(codes.shape)}"
            )
        length = self._length(codes.shape[3], num_samples)
        rows, mid_side = codes.to(self.device).flatten(0, 1), codes.shape[1] == 2
        counts = stereo.codebooks_of(rows) if mid_side else [codes.shape[2]] * len(rows)
        audio = torch.zeros(len(rows), length, device=self.device)
        for part in self._passes([i for i, n in enumerate(counts) if n], codes.shape[3]):
            noise_at = [_SIDE_NOISE_FRAMES * (i % 2) if mid_side else 0 for i in part]
            blocks = decode_rows(*self._parts, rows[part], [counts[i] for i in part], noise_at)
            audio[part] = torch.cat(list(blocks), 1)[:, :length]
        audio = audio.unflatten(0, codes.shape[:2])
        of_items = stereo.checked_predictions(predictions, len(codes))
        return stereo.to_left_right(audio, of_items) if mid_side else audio

    def reconstruct(
        self, audio: torch.Tensor, *, kbps: float | None = None, num_codebooks: Codebooks | None = None
    ) -> torch.Tensor:
        """`encode` and `decode`, with the best predictions: (batch, channels, samples) -> the same shape."""
        predictions = stereo.best_predictions(audio) if audio.ndim == 3 and audio.shape[1] == 2 else None
        codes = self.encode(audio, kbps=kbps, num_codebooks=num_codebooks, predictions=predictions)
        return self.decode(codes, audio.shape[-1], predictions=predictions)

    def encode_latents(self, audio: torch.Tensor) -> torch.Tensor:
        """(batch, channels, samples) -> (batch, channels, frames, latent_dim), nothing quantized."""
        rows, encode = self._rows(audio), self.autoencoder.encode_blocks
        passes = self._passes(range(len(rows)), rows.shape[1] // self.hop_length)
        latents = torch.cat([torch.cat(list(encode([rows[part]])), 1) for part in passes])
        return latents.unflatten(0, audio.shape[:2])

    def decode_latents(self, latents: torch.Tensor, num_samples: int | None = None) -> torch.Tensor:
        """(batch, channels, frames, latent_dim) -> (batch, channels, num_samples or frames * hop_length)."""
        length = self._length(latents.shape[2], num_samples)
        rows, decode = latents.to(self.device).flatten(0, 1), self.autoencoder.decode_blocks
        passes = self._passes(range(len(rows)), latents.shape[2])
        audio = torch.cat([torch.cat(list(decode(rows[part].split(CHUNK_FRAMES, 1))), 1) for part in passes])
        return audio[:, :length].unflatten(0, latents.shape[:2])

    # ---- coding of signals of any length ---------------------------------------------------------------

    def encode_blocks(
        self, blocks: Iterable[torch.Tensor], num_codebooks: Codebooks | None = None, prediction: int = 0
    ) -> Iterator[torch.Tensor]:
        """Codes of a signal that arrives in blocks, in memory that does not grow with its length.

        Args:
            blocks: (channels, n) with any n, in order.
            num_codebooks: as `encode` has it; all if None. (n, 0) leaves out a side that is silent.
            prediction: of the side of two channels.

        Yields:
            (channels, num_codebooks, frames), int64; laid end to end they are the codes of the whole signal,
            save where float rounding decides between two codewords.
        """
        blocks = iter(blocks)
        first = next(blocks, None)
        if first is None:
            return
        counts = self.codebooks(num_codebooks, len(first))
        rows: Iterable[torch.Tensor] = itertools.chain([first], blocks)
        if len(first) == 2:
            rows = (stereo.to_mid_side(block, prediction) for block in rows)
        coded = sum(map(bool, counts))
        for codes in encode_rows(*self._parts, (block[:coded] for block in rows), counts[:coded]):
            yield F.pad(codes, (0, 0, 0, 0, 0, len(counts) - coded), value=NO_CODE)

    def decode_blocks(self, codes: torch.Tensor, prediction: int | None = 0) -> Iterator[torch.Tensor]:
        """Audio (channels, samples) block by block of codes (channels, num_codebooks, frames), integers.

        Args:
            prediction: of the side of two channels; None: the codes are those of left and right, as in files
                of versions 1 and 2.
        """
        if len(codes) != 2 or prediction is None:
            yield from decode_rows(*self._parts, codes, [codes.shape[1]] * len(codes), [0] * len(codes))
            return
        counts = stereo.codebooks_of(codes)
        coded = sum(map(bool, counts))
        for rows in decode_rows(*self._parts, codes[:coded], counts[:coded], [0, _SIDE_NOISE_FRAMES][:coded]):
            yield stereo.to_left_right(F.pad(rows, (0, 0, 0, 2 - coded)), prediction)

    def header(
        self,
        channels: int,
        num_codebooks: Codebooks,
        source_rate: int,
        source_samples: int,
        *,
        prediction: int = 0,
    ) -> QncHeader:
        """Header of the .qnc file of codes of this model, from the source's sample rate and length."""
        counts, packed = self.codebooks(num_codebooks, channels), self.tables is None
        side = Side(counts[1], prediction) if channels == 2 else None
        versions = (PACKED, ENTROPY_CODED) if side is None else (PACKED_MID_SIDE, ENTROPY_CODED_MID_SIDE)
        return QncHeader(
            model=self.model_id,
            sample_rate=self.sample_rate,
            hop_length=self.hop_length,
            num_samples=resampled_length(source_samples, source_rate, self.sample_rate),
            source_rate=source_rate,
            source_samples=source_samples,
            channels=channels,
            codebook_sizes=self._quantizer.codebook_sizes[: counts[0]],
            version=versions[not packed],
            side=side,
        )

    def check_header(self, header: QncHeader) -> None:
        """Raises UserError unless ``header`` is of a .qnc file that this model can decode."""
        if header.model != self.model_id:
            name = model_folder.shipped_as(header.model.hex())
            raise UserError(
                f".qnc file was encoded with model {header.model.hex()}, the loaded one is"
                f" {self.model_id.hex()}: give the model it was encoded with{f', {name}' if name else ''}"
            )
        known = self.sample_rate, self.hop_length, self._quantizer.codebook_sizes[: header.num_codebooks]
        if (header.sample_rate, header.hop_length, header.codebook_sizes) != known:
            raise UserError(".qnc file is damaged: its header does not fit the model it names; encode again")

    # ---- parts -----------------------------------------------------------------------------------------

    @property
    def _quantizer(self) -> Quantizer:
        if self.quantizer is None:
            raise UserError("this model has no quantizer, so no codes and no bitrate: fit one to its latents")
        return self.quantizer

    def _passes(self, rows: Sequence[int], frames: int) -> list[list[int]]:
        """Which rows are coded at once: one on the CPU, elsewhere as many as make 16 chunks."""
        at_once = 16 * CHUNK_FRAMES // max(1, min(frames, CHUNK_FRAMES)) if self.device.type != "cpu" else 1
        return [list(rows[start : start + at_once]) for start in range(0, len(rows), at_once)]

    @property
    def _parts(self) -> tuple[Autoencoder, Quantizer]:
        return self.autoencoder, self._quantizer

    def _rows(self, audio: torch.Tensor) -> torch.Tensor:
        """(batch, channels, samples), checked, as (batch * channels, samples)."""
        if audio.ndim != 3 or 0 in audio.shape or not audio.is_floating_point():
            raise UserError(
                "audio must have shape (batch, channels, samples), at least one of each, and be float32;"
                f" got {audio.dtype} of shape {tuple(audio.shape)}"
            )
        if not torch.isfinite(audio).all():
            raise UserError("audio holds NaN or infinity; correct or leave out what made it")
        return audio.float().flatten(0, 1).to(self.device)

    def _length(self, frames: int, num_samples: int | None) -> int:
        longest = frames * self.hop_length
        length = longest if num_samples is None else num_samples
        if not longest - self.hop_length < length <= longest:
            raise UserError(
                f"{frames} frames are {longest} samples; num_samples={length} is not a trim of the last frame"
            )
        return length


def load(
    name_or_path: str | Path | None = None, *, device: str | torch.device = "cpu", search: str | None = None
) -> Qincodec:
    """A model by the name of a shipped one (None: the first), by folder, or ``untrained:SIZE``.

    ``search`` is how its quantizer looks for codes: "fast", "default" or "best", as the commands have it
    (`Quantizer.searching`); None: to the letter as the model was saved. The model is the same, and so is its
    hash.

    Untrained models have random weights that depend on nothing but the size; they code every signal to
    noise and are for tests and benchmarks.

    Raises:
        UserError: no such model, a damaged one, an unknown size, a device that is not there, or a search the
            quantizer does not have.
    """
    where = check_device(device)
    if isinstance(name_or_path, str) and name_or_path.startswith(UNTRAINED):
        codec = _untrained(name_or_path.removeprefix(UNTRAINED))
    else:
        codec = _trained(model_folder.find(name_or_path))
    codec.autoencoder.to(where)
    if codec.quantizer is not None:
        codec.quantizer.to(where)
        if search is not None:
            assert codec.hash  # of the model as it was saved
            codec.quantizer.searching(search)
    return codec


def check_device(name: str | torch.device) -> torch.device:
    """The device of that name. Raises UserError for an unknown name and for one that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device '{name}': give cpu, or cuda on a GPU") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{name}' is not available: {reason}; give cpu") from error
    return device


def _untrained(size: str) -> Qincodec:
    config = architectures.of_size(size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = architectures.autoencoder(config)
        quantizer = RVQ(config.latent_dim, _UNTRAINED_CODEBOOKS)
    quantizer.codebooks *= 0.02 * config.dim**0.5  # how large random weights make the latents
    return Qincodec(autoencoder, quantizer, trained=False)


def _trained(folder: Path) -> Qincodec:
    config, tensors, digest = model_folder.load(folder)
    parts: dict[str, dict[str, torch.Tensor]] = {"autoencoder": {}, "quantizer": {}, "tables": {}}
    try:
        if missing := {"trained", "autoencoder", "quantizer"} - config.keys():
            raise UserError(f"its {model_folder.CONFIG_NAME} has no '{sorted(missing)[0]}'; get a whole copy")
        flags = {name: config[name] for name in ("trained", "finetuned") if name in config}
        if wrong := [name for name, value in flags.items() if type(value) is not bool]:
            raise UserError(f"{wrong[0]} must be true or false, got {shown(flags[wrong[0]])}")
        for name, tensor in tensors.items():
            if tensor.is_complex():
                raise UserError(f"tensor '{name}' is of type {tensor.dtype}; get a whole copy")
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        autoencoder = architectures.autoencoder(
            architectures.from_dict(config["autoencoder"]), parts["autoencoder"]
        )
        quantizer = None
        if config["quantizer"] is not None:
            name = str(config["quantizer"]["kind"])
            if name not in QUANTIZERS:
                hint = "if it is in a Python file, give --plug-in FILE.py:CLASS"
                raise UserError(f"{unknown('quantizer', name, QUANTIZERS.names())}; {hint}")
            kind = QUANTIZERS.load(name)
            with torch.random.fork_rng(devices=[]):  # loading draws nothing from the caller's generator
                quantizer = kind.from_config(config["quantizer"])
            quantizer.load_state_dict(parts["quantizer"])
        frequencies = [parts["tables"][str(n)].numpy() for n in range(len(parts["tables"]))]
        tables = CodeTables(frequencies) if frequencies else None
        codec = Qincodec(autoencoder, quantizer, tables=tables, **flags)
    except UserError as error:
        # A name out of the configuration may hold anything, line ends too.
        raise UserError(f"model '{folder}': {' '.join(str(error).split())}") from error
    except Exception as error:  # a configuration may be anybody's, and so may the quantizer's class
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"model '{folder}' does not fit this program: {reason[:300]}") from error
    codec.hash = digest
    return codec
