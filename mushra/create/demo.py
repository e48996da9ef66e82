"""A small listening test from the demo clips that come with the program."""

from __future__ import annotations

import sys
from pathlib import Path

from qincodec.core.console import ProgressLine
from qincodec.core.errors import UserError

KBPS = 16.0
ITEMS = 3
RUN = "run"
TEST = "test"


def make_demo(out: Path) -> Path:
    """Encode demo clips with Opus and MP3 (and QINCODEC if its weights are here) and make a test of them.

    Args:
        out: folder for the run and the test. An earlier demo there is used as it is, with its results.

    Returns:
        The test's folder.

    Raises:
        UserError: the folder holds other files.
    """
    from baselines.registry import unavailable
    from evaluation.session import evaluate
    from mushra.config.locate import CONFIG_NAME
    from mushra.create.documents import Options
    from mushra.create.folder import check_out, create_test, creating_prefix
    from mushra.create.material import RunMaterial

    test = out / TEST
    if (test / CONFIG_NAME).is_file():
        return test
    unfinished = creating_prefix(test)
    if out.exists() and (
        not out.is_dir()
        or any(p.name not in (RUN, TEST) and not p.name.startswith(unfinished) for p in out.iterdir())
    ):
        raise UserError(f"'{out}' holds files other than a demo; give another folder with --out")
    check_out(test, force=True)
    codecs = ["opus", "mp3"]
    missing = unavailable("qincodec")
    if missing is None:
        codecs.append("qincodec")
    else:
        print(f"QINCODEC is left out: {missing}", file=sys.stderr)
    with ProgressLine() as progress:
        # Only the encoded items and training clip are needed; SI-SDR and nominal rates cost nothing.
        evaluate(
            codecs=codecs,
            kbps=[KBPS],
            limit=ITEMS + 1,
            out=out / RUN,
            metrics="si_sdr",
            match="nominal",
            progress=progress,
        )
        options = Options(
            items=ITEMS,
            duration_s=5.0,
            title="Demonstration of a listening test",
            test_id="demo",
        )
        create_test(RunMaterial(out / RUN), test, options, force=True, progress=progress)
    return test
