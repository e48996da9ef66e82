"""PESQ, STOI and ESTOI: made for speech and validated only on speech."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

from baselines.lazy import Lazy
from evaluation.metrics.per_clip import NoScore, PackageMetric

if TYPE_CHECKING:
    import numpy as np
else:
    np = Lazy("numpy")

#: Seconds. The program has room for 50 utterances and overruns without a check. An utterance and its gap take
#: 0.4 s at least, so a clip of this length cannot have more.
_LONGEST_PESQ_S = 19.0
#: What pystoi returns for a clip that is too short.
_TOO_SHORT_STOI = 1e-5


class Pesq(PackageMetric):
    """PESQ, wide-band (ITU-T P.862.2), by the package ``pesq``, which wraps the ITU's program.

    The values are those of ``pesq.pesq(16000, reference, decoded, "wb")`` to the last bit.
    """

    name = "pesq"
    label = "PESQ"
    unit = "MOS"
    higher_is_better = True
    sample_rate = 16000
    speech_only = True
    distribution = module = "pesq"
    definition = (
        "Wide-band PESQ (ITU-T P.862.2), MOS-LQO from 1.04 to 4.64, of both signals at 16 kHz; of clips of "
        "0.25 to 19 s."
    )

    def score_clip(self, reference: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
        import pesq

        if len(reference) > _LONGEST_PESQ_S * sample_rate:
            raise NoScore(f"longer than {_LONGEST_PESQ_S:g} s, beyond which PESQ may overrun; use --chunk")
        try:
            return float(pesq.pesq(sample_rate, reference, decoded, "wb"))
        except pesq.BufferTooShortError as error:
            raise NoScore("shorter than the 0.25 s that PESQ needs") from error
        except pesq.NoUtterancesError as error:
            raise NoScore("PESQ finds no utterance in it") from error


class Stoi(PackageMetric):
    """STOI (Taal et al., IEEE TASLP 2011) by the package ``pystoi``, which resamples to 10 kHz.

    The values are those of ``pystoi.stoi`` at the evaluation's rate to the last bit.
    """

    name = "stoi"
    label = "STOI"
    unit = ""
    higher_is_better = True
    speech_only = True
    distribution = module = "pystoi"
    definition = (
        "Short-time objective intelligibility (Taal et al. 2011), up to 1, of both signals at 10 kHz: mean "
        "over 384 ms and 15 third-octave bands from 150 Hz of the correlation of envelopes, without silent "
        "frames."
    )
    extended = False

    def __init__(self) -> None:
        super().__init__()
        warnings.filterwarnings("ignore", "Not enough STFT frames", RuntimeWarning)  # the row has the reason

    def score_clip(self, reference: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
        import pystoi

        try:
            value = float(pystoi.stoi(reference, decoded, sample_rate, extended=self.extended))
        except ValueError as error:  # NumPy has no maximum of no frames
            raise NoScore(_NO_FRAMES) from error
        if value == _TOO_SHORT_STOI:
            raise NoScore(_NO_FRAMES)
        return value


_NO_FRAMES = "shorter than the 30 frames (0.4 s) with speech that STOI needs"


class Estoi(Stoi):
    """Extended STOI (Jensen and Taal, IEEE TASLP 2016), as `Stoi`.

    The package adds noise of 1e-16 from NumPy's global generator, which decides where a band is silent. The
    generator is seeded, so that a clip always has the same score.
    """

    name = "estoi"
    label = "ESTOI"
    definition = (
        "Extended short-time objective intelligibility (Jensen and Taal 2016), up to 1, of both signals at "
        "10 kHz: mean correlation of spectra of 15 third-octave bands, normalised in time and frequency over "
        "384 ms, without silent frames."
    )
    extended = True
    _lock = threading.Lock()

    def score_clip(self, reference: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
        with self._lock:
            state = np.random.get_state()
            try:
                np.random.seed(0)
                return super().score_clip(reference, decoded, sample_rate)
            finally:
                np.random.set_state(state)
