"""A session of webMUSHRA's own page in a browser, by what a listener sees; PHP's answer to the same body.

Nothing here knows webMUSHRA's code: buttons are found by role and text, sliders and questions by their kind.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import soundfile
from serving import free_port
from werkzeug.serving import make_server

from mushra.config.load import load_config
from mushra.config.pages import LikertPage, TestConfig, Trial, VolumePage
from mushra.server import create_app
from mushra.store import export

SERVICE = "service/write.php"
#: A page is left by one of these; the first that can be clicked.
ONWARD = re.compile(
    r"^\s*(next|start|continue|send( results)?|submit|finish|weiter|absenden|suivant)\s*$", re.IGNORECASE
)
PLAYS = re.compile(r"play|^\s*(reference|[a-z]|\d+)\s*$", re.IGNORECASE)
#: Tries to leave one page before it counts as stuck; some buttons unlock while a sound plays.
TRIES = 40

#: Fills in what is seen: boxes ticked, the first radio of every group, texts, the first slider at its top.
FILL = """
() => {
  const seen = (element) => element.getClientRects().length > 0 && !element.disabled;
  const said = (element) => ["input", "change"].forEach((kind) =>
    element.dispatchEvent(new Event(kind, { bubbles: true })));
  const groups = new Set();
  let sliders = 0;
  for (const element of document.querySelectorAll("input, textarea, select")) {
    const type = element.type;
    // jQuery Mobile shows the label and hides the box.
    if (!seen(element) && !(element.labels?.length && seen(element.labels[0]))) continue;
    if (type === "checkbox" && !element.checked) element.click();
    else if (type === "radio") {
      if (groups.has(element.name)) continue;
      groups.add(element.name);
      if (!element.checked) element.click();
    } else if (type === "range" || element.matches("[data-type=range]")) {
      element.value = sliders === 0 ? element.max : String(Math.round(Number(element.max) / (2 + sliders)));
      sliders += 1;
      said(element);
    } else if (element.value === "" && type === "number") {
      element.value = element.min || "1";
      said(element);
    } else if (element.value === "" && ["text", "textarea"].includes(type)) {
      element.value = "walked";
      said(element);
    }
  }
}
"""


def copied(checkout: Path, folder: Path) -> Path:
    """A copy of a checkout without its results."""
    ignored = shutil.ignore_patterns(".git", "node_modules", "results")
    shutil.copytree(checkout, folder, ignore=ignored)
    (folder / "results").mkdir()
    return folder


def add_missing_sounds(config: TestConfig, root: Path) -> list[str]:
    """Noise in the place of sounds that a test names and a checkout lacks; their paths."""
    wanted: list[str] = []
    for page in config.flat():
        if isinstance(page, VolumePage):
            wanted.append(page.stimulus)
        if isinstance(page, Trial):
            wanted.append(page.reference)
        if isinstance(page, Trial | LikertPage):
            wanted += page.stimuli.values()
    made = [path for path in dict.fromkeys(wanted) if not (root / path).is_file()]
    for n, path in enumerate(made):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(n).normal(0, 0.05, 48000)
        soundfile.write(root / path, noise, 48000, format="WAV")
    return made


def walk(page: Any, url: str) -> tuple[str, bytes]:
    """Takes the test at ``url``; type and bytes of the body that the page sent in the end.

    Raises:
        AssertionError: a page cannot be left; with what it shows.
    """
    sent: list[tuple[str, bytes]] = []

    def look(request: Any) -> None:
        if request.method == "POST" and request.url.endswith(SERVICE):
            sent.append((request.headers.get("content-type", ""), request.post_data_buffer))

    page.on("request", look)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(url)
    page.wait_for_load_state("networkidle")
    before, tries = "", 0
    while not sent:
        text = page.locator("body").inner_text()
        tries = tries + 1 if text == before else 0
        before = text
        assert tries < TRIES, f"stuck at {url}: {text[:1000]}"
        for button in page.get_by_role("button", name=PLAYS).all():
            if button.is_visible() and button.is_enabled():
                button.click()
        page.evaluate(FILL)
        onward = [one for one in page.get_by_role("button", name=ONWARD).all() if one.is_visible()]
        ready = [one for one in onward if one.is_enabled()]
        if ready:
            ready[0].click()
        page.wait_for_timeout(250)  # the page tells nobody when it has changed
    page.wait_for_load_state("networkidle")
    return sent[0]


@contextmanager
def php(folder: Path) -> Iterator[str]:
    """PHP's own server for a checkout; its address."""
    port = free_port()
    with (folder.parent / "php.log").open("wb") as log:
        command = ["php", "-S", f"127.0.0.1:{port}", "-t", str(folder)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while "started" not in (folder.parent / "php.log").read_text(errors="replace"):
            assert process.poll() is None, (folder.parent / "php.log").read_text(errors="replace")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def php_files(folder: Path, kind: str, body: bytes) -> dict[str, bytes]:
    """What PHP writes into ``results`` of a checkout for that body: path below it -> content."""
    with php(folder) as url:
        request = urllib.request.Request(url + SERVICE, body, {"Content-Type": kind})
        with urllib.request.urlopen(request) as answer:
            said = answer.read()
            assert (answer.status, said) == (200, b""), f"PHP says {said[:500]!r}"
    results = folder / "results"
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("*.csv"))}


@dataclass(frozen=True)
class Taken:
    """What webMUSHRA's page sent, and the CSV files that we export: path below ``results`` -> content."""

    kind: str
    body: bytes
    files: dict[str, bytes]


def take(page: Any, checkout: Path, name: str, folder: Path) -> Taken:
    """Takes one of a checkout's tests by its own page on our server."""
    here = copied(checkout, folder / "ours")
    add_missing_sounds(load_config(here / "configs" / name), here)
    app = create_app(None, folder / "sessions.sqlite", webmushra_folder=here)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    store = app.extensions["mushra"].store
    try:
        kind, body = walk(page, f"http://127.0.0.1:{server.server_port}/?config={name}")
        ours = {path: text.encode() for path, text in export.render(store, "webmushra").items()}
    finally:
        server.shutdown()
        server.server_close()
        store.close()
    assert ours, "nothing was stored"
    return Taken(kind, body, ours)


def compare(taken: Taken, checkout: Path, folder: Path) -> None:
    """Raises AssertionError where PHP writes other files of the same body; ``folder`` is made for it."""
    folder.mkdir()
    ours, theirs = taken.files, php_files(copied(checkout, folder / "checkout"), taken.kind, taken.body)
    assert sorted(ours) == sorted(theirs), f"we write {sorted(ours)}, PHP {sorted(theirs)}"
    for path, content in ours.items():
        lines = zip_longest(content.splitlines(), theirs[path].splitlines())
        differing = [f"ours {one!r}, PHP's {other!r}" for one, other in lines if one != other]
        assert content == theirs[path], f"{path} differs from PHP's: {differing[:3]}"
