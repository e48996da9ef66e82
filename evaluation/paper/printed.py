"""What stands in the paper's tables and figures: the rows that are wanted, and the values it printed.

Source: Z. Lahrichi, G. Hadjeres, G. Richard and G. Peeters, "QINCODEC: Neural Audio Compression with Implicit
Neural Codebooks", Tables I and II. The numbers of Table III and the data of the figures are not in the text
these were transcribed from; nothing stands in their place.
"""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    "Z. Lahrichi, G. Hadjeres, G. Richard, G. Peeters: QINCODEC: Neural Audio Compression with Implicit "
    "Neural Codebooks"
)
TEST_SET = "AudioCaps' test set"
TEST_SET_CLIPS = 975
EXCERPT_S = 5.0

DAC, ENCODEC = "dac", "encodec"
RVQ, IRVQ, QINCO2 = "rvq", "irvq", "qinco2"
FINETUNED = "-finetuned"


@dataclass(frozen=True)
class WantedRow:
    """A row of a table.

    Attributes:
        key: of the codec or the model in it, as after ``--skip``.
        label: as the paper names it.
        finetuned: of QINCODEC: after stage 3; None for the baselines.
    """

    key: str
    label: str
    finetuned: bool | None = None


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        key: metric in a run, "perplexity" or "latent_error".
        heading: with unit and arrow.
        decimals: those of the paper; None: as many as the interval tells.
        in_paper: False for what the paper does not have.
    """

    key: str
    heading: str
    decimals: int | None = None
    in_paper: bool = True


PERPLEXITY, LATENT_ERROR = "perplexity", "latent_error"
COLUMNS = (
    Column("si_sdr", "SI-SDR (dB) ↑", 2),
    Column("ms_mel", "MS-Mel ↓", 2),
    Column("fd_openl3", "FD-OL3 ↓", 1),
    Column("fm_openl3", "FM-OL3 ↓", 2),
    Column(PERPLEXITY, "perplexity ↑", 0),
)
#: Beside them where OpenL3 cannot be computed. Other numbers on another scale, hence under their own name.
SUBSTITUTES = (
    Column("fd_logmel", "FD-logmel ↓", in_paper=False),
    Column("fm_logmel", "FM-logmel ↓", in_paper=False),
)

_QINCODEC = (
    WantedRow(IRVQ, "QINCODEC iRVQ", False),
    WantedRow(IRVQ + FINETUNED, "QINCODEC iRVQ, finetuned", True),
    WantedRow(QINCO2, "QINCODEC QINCO2", False),
    WantedRow(QINCO2 + FINETUNED, "QINCODEC QINCO2, finetuned", True),
)
#: Rows of Tables I and II.
COMPARISON = (WantedRow(DAC, "DAC"), WantedRow(ENCODEC, "EnCodec"), *_QINCODEC)
#: Rows of Table III.
ABLATION = (WantedRow(RVQ, "RVQ", False), WantedRow(IRVQ, "iRVQ", False), WantedRow(QINCO2, "QINCO2", False))
#: Curves of Fig. 3; of several keys the first that is there: fine-tuning changes no codes.
CODEBOOKS = (
    ("EnCodec", (ENCODEC,)),
    ("DAC", (DAC,)),
    ("QINCODEC", (QINCO2 + FINETUNED, QINCO2)),
    ("QINCODEC with iRVQ", (IRVQ + FINETUNED, IRVQ)),
)

#: Models of QINCODEC that rows need.
ROLES = (RVQ, *(row.key for row in _QINCODEC))
#: Of the models of one latent dimension, the one that is drawn in Fig. 4.
BEST_FIRST = (QINCO2 + FINETUNED, QINCO2, IRVQ + FINETUNED, IRVQ, RVQ)

TABLE_RATES = {"I": 16.0, "II": 8.0}
ABLATION_RATE = 16.0
CURVE_RATES = (3.0, 8.0, 16.0, 24.0)
#: Latent dimensions of the paper's models, and the one it calls the optimal choice (VI-C).
LATENT_DIMS, CHOSEN_DIM = (16, 32, 64), 32

#: (kbps, row) -> values in the order of `COLUMNS`.
VALUES: dict[tuple[float, str], tuple[float, ...]] = {
    (16.0, DAC): (9.04, 0.85, 51.4, 0.23, 784),
    (16.0, ENCODEC): (6.10, 1.39, 97.2, 0.35, 588),
    (16.0, IRVQ): (6.20, 0.93, 45.5, 0.23, 926),
    (16.0, IRVQ + FINETUNED): (6.58, 0.82, 31.3, 0.21, 926),
    (16.0, QINCO2): (7.22, 0.79, 38.1, 0.21, 980),
    (16.0, QINCO2 + FINETUNED): (7.55, 0.74, 34.4, 0.19, 980),
    (8.0, DAC): (5.49, 1.07, 45.7, 0.28, 746),
    (8.0, ENCODEC): (3.22, 1.57, 98.4, 0.39, 506),
    (8.0, IRVQ): (2.60, 1.46, 77.0, 0.33, 919),
    (8.0, IRVQ + FINETUNED): (3.77, 1.14, 39.3, 0.28, 919),
    (8.0, QINCO2): (3.96, 1.32, 67.1, 0.31, 957),
    (8.0, QINCO2 + FINETUNED): (4.64, 1.12, 35.7, 0.27, 957),
}


def is_wanted(key: str, kbps: float) -> bool:
    """Whether a table has this row at that rate: RVQ stands in Table III alone."""
    return key != RVQ or kbps == ABLATION_RATE


def printed(kbps: float, key: str, column: str) -> float | None:
    """What the paper printed; None where it has nothing or our copy has lost it."""
    row = VALUES.get((kbps, key))
    names = [entry.key for entry in COLUMNS]
    return row[names.index(column)] if row is not None and column in names else None
