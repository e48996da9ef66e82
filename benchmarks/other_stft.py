"""Spectra of sizes that neither training nor MS-Mel looks at, of every condition of a finished run.

    python benchmarks/other_stft.py RUN [--condition NAME@KBPS=DIR]

Mean over frames and bins of |log10 max(R, 1e-4) - log10 max(D, 1e-4)| of the magnitudes of reference and
decoded; Hann windows of 90 to 3000 samples, hop a quarter, no mel bands. Lower is better; intervals are
`evaluate`'s, over recordings. A clip shorter than half a window counts in the other columns, and one on which
the codec failed in none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from evaluation.engine.replay import RunAudio
from evaluation.engine.request import parse_conditions
from evaluation.report.cells import row_label
from evaluation.run.store import RunStore
from evaluation.statistics.recordings import Sample, bootstrap_means
from qincodec.core.errors import UserError

WINDOWS = (3000, 1500, 700, 300, 90)
FLOOR = 1e-4


def log_magnitudes(samples: np.ndarray, window: int) -> torch.Tensor:
    """(channels, bins, frames) of (channels, samples)."""
    hann = torch.hann_window(window)
    spectrum = torch.stft(torch.from_numpy(samples), window, window // 4, window=hann, return_complex=True)
    return spectrum.abs().clamp(min=FLOOR).log10()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--condition", action="append", default=[], help="NAME[@KBPS]=DIR, as in evaluate")
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    with RunStore(arguments.run, write=False) as store:
        signals = RunAudio(store, folders=parse_conditions(arguments.condition))
        conditions = store.read_run().conditions
        clips = [clip for clip in store.read_clips() if clip.error is None]
        print(f"{'condition':<28}" + "".join(f"{window:>24}" for window in WINDOWS))
        for condition in conditions:
            label = row_label(condition.codec, condition.kbps)
            distances = np.full((len(clips), len(WINDOWS)), np.nan)
            for row, clip in enumerate(track(clips, label, transient=True, console=progress)):
                coded = signals.row(condition, clip)
                if coded is not None and coded.error is not None:
                    continue
                pair = signals.reference(clip), signals.decoded(condition, clip)
                for column, window in enumerate(WINDOWS):
                    if pair[0].shape[-1] > window // 2:
                        one, other = (log_magnitudes(x, window) for x in pair)
                        distances[row, column] = (one - other).abs().mean()
            recordings = np.array([clip.recording for clip in clips])
            cells = []
            for values in distances.T:
                counted = np.isfinite(values)
                (estimate,) = bootstrap_means([Sample(recordings[counted], values[counted])], seed=0)
                cells.append(f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")
            print(f"{label:<28}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
