"""Quality of a codec in training, on fixed excerpts, by the metrics of its evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from qincodec import audio as audio_files
from qincodec.autoencoder import Autoencoder
from qincodec.distances import ms_mel, si_sdr
from qincodec.quantizers.base import Quantizer
from qincodec.training.adversarial import quantized

#: Excerpts whose audio and spectrograms are written.
_SAMPLES = 4


class Validation:
    """Scores on excerpts: of the autoencoder alone, or with a quantizer at several rates.

    Args:
        clips: (id, (samples,)) of `qincodec.training.data.validation_clips`.
        quantizer: with a frozen encoder, so that the decoder's input is computed once.
        codebooks: numbers of codebooks to validate at; empty without a quantizer.
    """

    def __init__(
        self,
        clips: Sequence[tuple[str, torch.Tensor]],
        quantizer: Quantizer | None = None,
        codebooks: Sequence[int] = (),
    ) -> None:
        self._clips = list(clips)
        self._quantizer = quantizer
        self._codebooks = sorted(set(codebooks))
        self._latents: dict[tuple[int, int], torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, autoencoder: Autoencoder, samples: Path | None = None) -> dict[str, float]:
        """Means over the excerpts, of finite values; ``score``, their mean MS-Mel, decides what is best.

        Args:
            autoencoder: put into evaluation mode and back.
            samples: folder for audio and spectrograms of the first excerpts; None writes none.
        """
        training = autoencoder.training
        autoencoder.eval()
        scores: dict[str, float] = {}
        for n in self._codebooks or [0]:
            rows = []
            for number, (name, clip) in enumerate(self._clips):
                decoded = self._decode(autoencoder, number, n)
                pair = clip.to(decoded.device)[None, None], decoded[None, None]
                rate = autoencoder.config.sample_rate
                rows.append((float(si_sdr(*pair)), float(ms_mel(*pair, rate))))
                if samples is not None and number < _SAMPLES:
                    suffix = f"_{n}codebooks" if n else ""
                    _write_sample(samples, f"{number}{suffix}", name, clip, decoded.cpu(), rate)
            mark = f"_{n}" if n else ""
            for column, key in enumerate(("si_sdr", "ms_mel")):
                values = [row[column] for row in rows if math.isfinite(row[column])]
                scores[key + mark] = float(np.mean(values)) if values else math.nan
        autoencoder.train(training)
        mels = [value for key, value in scores.items() if key.startswith("ms_mel")]
        return {"score": float(np.mean(mels)), **scores}

    def _decode(self, autoencoder: Autoencoder, number: int, codebooks: int) -> torch.Tensor:
        clip = self._clips[number][1].to(autoencoder.window.device)
        key = number, codebooks
        if self._quantizer is None:
            latents = autoencoder.encode(clip[None])
        else:
            if key not in self._latents:
                self._latents[key] = quantized(autoencoder, self._quantizer, clip[None], codebooks).cpu()
            latents = self._latents[key].to(clip.device)
        return autoencoder.decode(latents)[0, : len(clip)]


def _write_sample(
    folder: Path, name: str, title: str, clip: torch.Tensor, decoded: torch.Tensor, sample_rate: int
) -> None:
    import matplotlib.figure
    import matplotlib.mlab

    folder.mkdir(parents=True, exist_ok=True)
    audio_files.write(folder / f"{name}.wav", decoded[None].numpy(), sample_rate)
    reference = folder / f"{name.partition('_')[0]}_reference.wav"
    if not reference.exists():
        audio_files.write(reference, clip[None].numpy(), sample_rate)
    figure = matplotlib.figure.Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    # File names may contain line ends, dollars (formulas in matplotlib) and bytes that are not text.
    title = "".join(c if c.isprintable() else "?" for c in title[-48:])
    for axis, signal, label in zip(axes, (clip, decoded), (title, "decoded"), strict=True):
        power, _, _ = matplotlib.mlab.specgram(signal.numpy(), NFFT=1024, noverlap=768, Fs=sample_rate)
        levels = 10 * np.log10(np.maximum(power, 1e-14))  # digital silence has no logarithm
        extent = (0, len(signal) / sample_rate, 0, sample_rate / 2)
        axis.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=-140, vmax=-30)
        axis.set_title(label, fontsize=8, parse_math=False)
        axis.set_xlabel("s")
    axes[0].set_ylabel("Hz")
    with warnings.catch_warnings():
        # A box if matplotlib's font lacks the letter.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(folder / f"{name}.png", dpi=80)
