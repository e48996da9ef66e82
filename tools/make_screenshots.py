"""Makes the pictures of pages: ``python tools/make_screenshots.py docs/images [--report RUN]``.

Of the listening page: a page with six items, the third one playing, in windows of several sizes, light and
dark. With ``--report``, of the HTML report of a run instead: its first screen, and below it the first clip to
hear. Needs Chromium and what the tests need (``make setup-dev``), which serve and drive the page alike.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from listener import listen, rate_with_keys, shown, start
from listening_material import GENERIC, mushra
from listening_site import Site

from evaluation.report.html import write_html

#: Name of a window -> its width and height in CSS pixels, and how many pixels of a screen one of them is.
WINDOWS = {
    "1280x720": (1280, 720, 1),
    "1440x900": (1440, 900, 1),
    "820x1180": (820, 1180, 1),
    "390x844": (390, 844, 2),
    "200-percent": (640, 360, 2),  # 1280 x 720, everything twice as large
}
SCORES = (100, 72, 35)
#: Of a palette: pages have few colours, and a picture of 24 bits is three times as large.
NUM_COLOURS = 128


def photograph(page: Any, path: Path) -> None:
    """The third item of a trial as it is rated."""
    for n, score in enumerate(SCORES, start=1):
        rate_with_keys(page, n, score)
    listen(page, 1.5)
    page.wait_for_selector(".state:text-is('Saved')")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def photograph_report(run: Path, path: Path) -> None:
    """The first screen, and the card of the first clip."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = write_html(run, Path(folder) / "report", clips=1)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(report.page.as_uri())
        parts = [page.screenshot(), page.locator(".clip").first.screenshot()]
        browser.close()
    first, card = (Image.open(io.BytesIO(part)).convert("RGB") for part in parts)
    both = Image.new("RGB", (first.width, first.height + card.height + 20), "white")
    both.paste(first, (0, 0))
    both.paste(card, ((first.width - card.width) // 2, first.height + 10))
    # Spectrograms would take all colours of a smaller palette, and codecs lose theirs.
    both.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("--report", type=Path, metavar="RUN", help="run whose report is photographed")
    given = parser.parse_args()
    out = given.out
    if given.report is not None:
        photograph_report(given.report, out / "report.png")
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    trial = mushra(reference="excerpt.wav", stimuli=dict.fromkeys("ABCDE", "excerpt.wav"))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        # Rules are in full on the first trial only: the second is photographed, and the first may be left.
        rules = dict.fromkeys(["must_hear_all", "must_rate_all", "one_at_100"], False)
        pages = [{**trial, "id": "training1"}, trial, GENERIC]
        site = Site(
            Path(folder) / "site", pages, qincodec={"rules": rules, "languages": ["en", "de", "fr", "es"]}
        )
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--mute-audio"]
        )
        for scheme in ("light", "dark"):
            for name, (width, height, scale) in WINDOWS.items():
                viewport = {"width": width, "height": height}
                context = browser.new_context(
                    viewport=viewport, device_scale_factor=scale, color_scheme=scheme
                )
                page = context.new_page()
                start(page, site.url)
                shown(page, "mushra")
                page.locator(".next").click()
                page.wait_for_selector(".place:text-is('Page 2 of 3')")
                shown(page, "mushra")
                photograph(page, out / f"listen-{name}-{scheme}.png")
                context.close()
        browser.close()
        site.close()


if __name__ == "__main__":
    main()
