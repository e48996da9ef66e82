"""Content of the paper's tables and figures: their rows, and the printed values.

Source: Z. Lahrichi, G. Hadjeres, G. Richard and G. Peeters, "QINCODEC: Neural Audio Compression with Implicit
Neural Codebooks", Tables I and II. The source text does not have the numbers of Table III and the data of the
figures, so they are missing here.
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
        key: key of its codec or model, as for ``--skip``.
        label: its name in the paper.
        finetuned: whether QINCODEC is trained through stage 3; None for the baselines.
    """

    key: str
    label: str
    finetuned: bool | None = None


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        key: metric in a run, "perplexity" or "latent_error".
        heading: heading with unit and arrow.
        decimals: decimals in the paper; None: decimals that fit the interval.
        in_paper: False for columns that the paper does not have.
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
#: Further columns if OpenL3 cannot be computed. They have their own names, because their scale differs.
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
#: Curves of Fig. 3, each of the first key with a model: fine-tuning does not change the codes.
CODEBOOKS = (
    ("EnCodec", (ENCODEC,)),
    ("DAC", (DAC,)),
    ("QINCODEC", (QINCO2 + FINETUNED, QINCO2)),
    ("QINCODEC with iRVQ", (IRVQ + FINETUNED, IRVQ)),
)

#: Roles of the QINCODEC models in the rows.
ROLES = (RVQ, *(row.key for row in _QINCODEC))
#: Order of preference of the models of one latent dimension for Fig. 4.
BEST_FIRST = (QINCO2 + FINETUNED, QINCO2, IRVQ + FINETUNED, IRVQ, RVQ)

TABLE_RATES = {"I": 16.0, "II": 8.0}
ABLATION_RATE = 16.0
CURVE_RATES = (3.0, 8.0, 16.0, 24.0)
#: Latent dimensions of the paper's models, and its optimal choice (VI-C).
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
    """Whether a table has this row at that rate: RVQ is only in Table III."""
    return key != RVQ or kbps == ABLATION_RATE


def printed(kbps: float, key: str, column: str) -> float | None:
    """The printed value; None if the paper or our copy of it has none."""
    row = VALUES.get((kbps, key))
    names = [entry.key for entry in COLUMNS]
    return row[names.index(column)] if row is not None and column in names else None
