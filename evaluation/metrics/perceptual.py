"""ViSQOL and the 2f-model: estimates of listeners' grades."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from evaluation.metrics.per_clip import NoScore, PackageMetric

if TYPE_CHECKING:
    import numpy as np

#: Numba's threads end the process if two of our threads use them at once; and `TwoF` is loaded uncompiled.
_NUMBA = threading.Lock()


class Visqol(PackageMetric):
    """ViSQOL v3 in audio mode (Chinen et al., QoMEX 2020), by the package ``visqol-python``.

    The values are those of its ``VisqolApi.measure_from_arrays`` at 48 kHz to the last bit. The package
    (3.8.0) states agreement with Google's C++ program 3.3.3 on that program's conformance files: nine of ten
    audio files to 1e-6, the tenth to 1.2e-4, speech to 1.1e-3. The files are not part of the package; the one
    that needs no file, identical signals, is in our tests: 4.7321.
    """

    name = "visqol"
    label = "ViSQOL"
    unit = "MOS"
    higher_is_better = True
    sample_rate = 48000
    distribution, module = "visqol-python", "visqol"
    definition = (
        "ViSQOL v3, audio mode, MOS-LQO from 1 to 4.73, of both signals at 48 kHz: similarity of gammatone "
        "spectrograms of 32 bands from 50 Hz to 15 kHz, mapped by support vector regression."
    )
    mode: Literal["audio", "speech"] = "audio"

    @cached_property
    def _api(self) -> Any:
        import visqol

        api = visqol.VisqolApi()
        # Never another mapping that happens to be installed, because the definition names this one.
        api.create(mode=self.mode, use_lattice_model=False)
        return api

    def score_clip(self, reference: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
        with _NUMBA:
            try:
                return float(self._api.measure_from_arrays(reference, decoded, sample_rate).moslqo)
            except ValueError as error:
                raise NoScore(f"{self.label}: {error}") from error
            except IndexError as error:  # an empty list of passages with speech
                raise NoScore(f"{self.label} finds no passage to compare") from error


class VisqolSpeech(Visqol):
    """ViSQOL v3 in speech mode, as `Visqol`, with the C++ program's ``--use_lattice_model=false``."""

    name = "visqol_speech"
    label = "ViSQOL-speech"
    sample_rate = 16000
    speech_only = True
    mode = "speech"
    definition = (
        "ViSQOL v3, speech mode, MOS-LQO from 1 to 5, of both signals at 16 kHz: similarity of gammatone "
        "spectrograms of 21 bands from 50 Hz to 8 kHz where there is speech, mapped by the exponential fit "
        "(the C++ program's --use_lattice_model=false, which is milder than its default)."
    )


class TwoF(PackageMetric):
    """The 2f-model (Kastner and Herre, WASPAA 2019), by the package ``seabass-2f``.

    The values are those of its ``estimated_mean_mushra_score`` at 48 kHz to the last bit.
    """

    name = "2f"
    label = "2f"
    unit = "MUSHRA"
    higher_is_better = True
    sample_rate = 48000
    distribution, module = "seabass-2f", "seabass"
    definition = (
        "2f-model (Kastner and Herre 2019): mean MUSHRA score from 0 to 100 estimated from two model output "
        "variables of PEAQ (ITU-R BS.1387, basic), AvgModDiff1 and ADB, of both signals at 48 kHz; made for "
        "separated sources, and used for codecs too."
    )

    @cached_property
    def _estimate(self) -> Any:
        import resampy  # noqa: F401  compiled, for whoever else uses it; the package imports it
        from numba.core import config

        # Compiled, the package takes more than a minute before the first score, in every process, and is not
        # faster afterwards: the compiled code already is NumPy.
        compiled, config.DISABLE_JIT = config.DISABLE_JIT, True  # type: ignore[attr-defined]
        try:
            from seabass.core.models import mms
        finally:
            config.DISABLE_JIT = compiled  # type: ignore[attr-defined]
        return mms.estimated_mean_mushra_score

    def score_clip(self, reference: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
        with _NUMBA:
            estimate = self._estimate
        try:
            return float(estimate(decoded, reference, fs=sample_rate))
        except ValueError as error:  # "Could not find a bound"
            raise NoScore("no passage of the reference is loud enough for PEAQ") from error
        except IndexError as error:  # no frames between the bounds
            raise NoScore("no passage of the reference is long enough for PEAQ") from error
