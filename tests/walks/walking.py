"""Commands as a person types them, in an environment that knows nothing of the checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

#: Of one command. A hang is to fail, a busy machine is not.
TIMEOUT_S = 3000


@dataclass(frozen=True)
class Shell:
    """A shell in ``folder`` whose programs are those of the environment that is tested."""

    folder: Path
    variables: dict[str, str]

    @property
    def bin(self) -> Path:
        """Programs of the tested environment; `QINCODEC_WALK_BIN`, or those of the running one."""
        return Path(os.environ.get("QINCODEC_WALK_BIN") or Path(sys.executable).parent).absolute()

    @property
    def versions(self) -> str:
        """Name of the tested environment's folder: of `make walks`, `newest` or `lowest`."""
        return self.bin.parent.name

    @property
    def environment(self) -> dict[str, str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))
        }
        return {**clean, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", **self.variables}

    def run(self, command: str, exits: tuple[int, ...] = (0,)) -> str:
        """What the command printed; fails unless it ends with one of ``exits`` and without a traceback."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        said = f"$ {command}\n{done.stdout}\n{done.stderr}"
        assert done.returncode in exits, said
        assert "Traceback" not in said, said
        return done.stdout

    @contextmanager
    def serving(self, command: str) -> Iterator[str]:
        """The listeners' link of `mushra serve` or `mushra demo`; Ctrl-C at the end."""
        log = self.folder / "server.log"
        with (
            log.open("w") as errors,
            subprocess.Popen(
                shlex.split(command, comments=True),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as server,
        ):
            try:
                assert server.stdout is not None
                links = (re.match(r"Listeners: (\S+)", line) for line in server.stdout)
                link = next((found[1] for found in links if found), None)
                assert link is not None, f"$ {command}\n{log.read_text()}"
                yield link
            finally:
                server.send_signal(signal.SIGINT)
                server.communicate(timeout=TIMEOUT_S)
            assert server.returncode in (0, 130), log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()

    @contextmanager
    def installed(self, package: Path, name: str) -> Iterator[None]:
        """`pip install` of a package of the user's own, taken away again at the end."""
        self.run(f"pip install --quiet {package}")
        try:
            yield
        finally:
            self.run(f"pip uninstall --quiet --yes {name}")


def write_package(folder: Path, name: str, modules: dict[str, str], entry_points: str) -> Path:
    """A package as the guides tell to make one: modules, and their entry points."""
    (folder / name).mkdir(parents=True)
    for module, text in modules.items():
        (folder / name / f"{module}.py").write_text(text)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n\n'
        f'[project]\nname = "{name.replace("_", "-")}"\nversion = "1"\n\n{entry_points}'
    )
    return folder


class Ear:
    """Tells by its sound which trial and condition a served signal is: the hash of the file against the key.

    Attributes:
        signals: trial -> its conditions, pages of training among them.
        trials: those that count.
    """

    def __init__(self, test: Path) -> None:
        key = json.loads((test / "key.json").read_text())
        self._heard: dict[str, tuple[str, str]] = {}
        self.signals: dict[str, list[str]] = {}
        for trial, entry in key["trials"].items():
            for one in entry["signals"].values():
                content = sha256((test / one["file"]).read_bytes()).hexdigest()
                assert self._heard.setdefault(content, (trial, one["condition"])) == (trial, one["condition"])
                self.signals.setdefault(trial, []).append(one["condition"])
        self.trials = sorted(trial for trial in self.signals if not trial.startswith("training"))

    def hear(self, url: str) -> tuple[str, str]:
        with urllib.request.urlopen(url) as answer:
            return self._heard[sha256(answer.read()).hexdigest()]

    def page(self, link: str, page: dict[str, Any]) -> tuple[str, list[str]]:
        """Trial, and the condition of each signal of a page in the order of its items."""
        heard = [self.hear(link + one["url"]) for one in page["signals"]]
        (trial,) = {trial for trial, _ in heard}
        return trial, [condition for _, condition in heard]


#: Grades of a listener: trial -> condition -> score.
Grades = dict[str, dict[str, int]]
#: Takes a test: link, ear, grades to give.
Take = Callable[[str, "Ear", Grades], None]


def request(method: str, url: str, body: Any, key: str = "") -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
        return json.load(answer)


def take_by_http(link: str, ear: Ear, grades: Grades) -> None:
    """The whole test, as the page's script would send it."""
    session = request("POST", f"{link}api/sessions", {})
    address = f"{link}api/sessions/{session['id']}"
    revisions = {}
    for page in session["pages"]:
        result: dict[str, Any] = {"revision": 1, "time_ms": 9000, "shown_at_ms": 10}
        if page["type"] == "consent":
            result["consent"] = {"given": True}
        elif page["type"] == "finish":
            result["responses"] = {one["name"]: _answer(one) for one in page["questionnaire"]}
        elif page["type"] == "mushra":
            trial, conditions = ear.page(link, page)
            heard = {"plays": 2, "heard_ms": 2500, "moves": 1, "first_ms": 900, "comment": ""}
            result["ratings"] = [
                {"signal": one["id"], "score": grades[trial][condition], **heard}
                for one, condition in zip(page["signals"], conditions, strict=True)
            ]
        request("PUT", f"{address}/pages/{page['id']}", result, session["key"])
        revisions[page["id"]] = 1
    request("POST", f"{address}/finish", {"revision_of": revisions}, session["key"])


def _answer(question: dict[str, Any]) -> str:
    """Something that the question takes."""
    options = question.get("response")
    return str(options[0]["value"] if options else question.get("min") or 30)
