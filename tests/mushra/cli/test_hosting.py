"""docs/how-to/hosting.md: its commands in order, and the files it names as far as they can be tried here.

Those for nginx and Caddy are tried by tests/mushra/server/test_proxies.py.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pages import blocks
from postgresql_server import new_database, program
from typer.testing import CliRunner

from mushra.cli.main import app as command_line
from mushra.config.load import load_config
from mushra.server import create_app
from mushra.store import schema
from mushra.store.ratings import read_ratings
from mushra.store.store import Store

ROOT = Path(__file__).resolve().parents[3]
HOSTING = ROOT / "docs" / "hosting"
#: Commands that change the whole machine -> what else is known of them.
ELSEWHERE = {
    "useradd": "",
    "python3 -m venv /opt/qincodec": "as `make setup` does it",
    "/opt/qincodec/bin/pip install": "as `make walks` does it",
    "cp docs/hosting/": "test_proxies.py and below",
    "systemctl enable": "the unit is checked below",
    "systemctl reload": "",
    "nginx -t": "test_proxies.py",
    "docker compose": "compose.yaml is checked below",
}


def commands() -> list[str]:
    return [line for block in blocks("docs/how-to/hosting.md", "sh") for line in block.splitlines()]


def served(line: list[str]) -> dict[str, Any]:
    """Options of `mushra serve` as its own parser reads them; raises for what it does not take."""
    group: Any = typer.main.get_command(command_line)
    assert line[0] == "serve"
    return dict(group.commands["serve"].make_context("serve", line[1:]).params)


def started() -> list[str]:
    """What the unit starts, without the program."""
    (line,) = re.findall("^ExecStart=(.+)$", (HOSTING / "qincodec.service").read_text(), flags=re.MULTILINE)
    path, *rest = shlex.split(line)
    assert path == "/opt/qincodec/bin/mushra"
    return rest


class Machine:
    """A machine whose /srv/mushra is a folder, and whose service is the test served as the unit says."""

    def __init__(self, srv: Path, listener: Any) -> None:
        self.srv, self._listener = srv, listener
        self.app: Any = None

    def start(self) -> None:
        options = served(started())
        folder = Path(self._place(str(options["test"])))
        self.app = create_app(
            load_config(folder),
            folder / "results.sqlite",
            prefix=options["prefix"],
            trusted_proxies=options["trusted_proxies"],
        )

    def stop(self) -> None:
        self.app.extensions["mushra"].store.close()

    def take(self) -> str:
        """A listener takes the test, at another server of the same data base; their name."""
        app = create_app(load_config(self.srv / "test"), self.srv / "test" / "results.sqlite")
        one = self._listener(app).take()
        app.extensions["mushra"].store.close()
        return str(one.session["id"])

    def listeners(self) -> set[str]:
        return set(read_ratings(self.srv / "test" / "results.sqlite")["session"])

    def run(self, line: str) -> str:
        """What the command printed."""
        words = shlex.split(self._place(line))
        if words[0] == "mushra":
            done = CliRunner().invoke(command_line, words[1:])
            assert done.exit_code == 0, (line, done.output, done.exception)
            return done.stdout
        if words[0] == "systemctl":
            {"start": self.start, "stop": self.stop}[words[1]]()
            return ""
        if words[0] == "curl":
            answer = self.app.test_client().get(words[-1].removeprefix("http://127.0.0.1:8000"))
            assert answer.status_code == 200
            return str(answer.text)
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def _place(self, text: str) -> str:
        return text.replace("/srv/mushra", str(self.srv))


def test_the_commands_of_the_page(
    make_folder: Callable[..., Path], listener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "srv", listener)
    machine.srv.mkdir()
    make_folder().rename(machine.srv / "test")
    machine.start()
    here: list[str] = []
    for line in commands():
        if line.startswith("pg_") or any(line.startswith(one) for one in ELSEWHERE):
            continue
        if line.startswith("mushra serve"):
            assert served(shlex.split(line)[1:]) == {**served(started()), "qr": True}
            continue
        if line.startswith("mushra forget"):
            here = [machine.take(), machine.take()]
            line = line.replace("LISTENER", here[0][:8])
        if "kept-monday" in line and line.startswith("mushra backup"):
            before = {machine.take(), machine.take()}
        if line.startswith("mv") and line.endswith("broken"):
            machine.take()  # whom the copy does not know
        if line.startswith("mushra backup") and "upgrade" in line:
            assert machine.listeners() == before
            monkeypatch.setattr(schema, "SCHEMA_VERSION", 2)  # the newer version
            monkeypatch.setitem(schema.MIGRATIONS, 1, lambda connection: None)
        if line.startswith("rm -f"):
            machine.stop()
            monkeypatch.undo()
        printed = machine.run(line)
        if line.startswith("curl"):
            assert '"status":"ok"' in printed
        if line.endswith("test/results.sqlite"):  # of the older version again
            machine.start()
            assert machine.listeners() == before
    assert machine.listeners() == before | {here[1]}
    machine.stop()


def test_postgresql_is_copied_while_it_is_used(
    postgresql: str, serve: Any, listener: Any, tmp_path: Path
) -> None:
    dump, restore = (line for line in commands() if line.startswith("pg_"))
    paths = os.pathsep.join([str(Path(program("initdb")).parent), os.environ["PATH"]])

    def run(line: str, database: str) -> None:
        line = line.replace("/srv/mushra", str(tmp_path))
        environment = {"PATH": paths, "MUSHRA_DATABASE": database}
        subprocess.run(["bash", "-c", line], check=True, env=environment)

    database, other = new_database(postgresql), new_database(postgresql)
    app = serve(database=database)
    kept, open_page = listener(app).take(), listener(app)
    run(dump, database)
    open_page.take()
    run(restore, other)
    with Store(other, create=False) as store:
        assert set(read_ratings(store)["session"]) == {kept.session["id"]}
        assert store.get_meta("secret") == app.extensions["mushra"].store.get_meta("secret")


def test_what_is_tried_elsewhere_is_on_the_page() -> None:
    assert all(any(line.startswith(one) for line in commands()) for one in ELSEWHERE)
    for name in re.findall(r"\]\(../hosting/(.+?)\)", (ROOT / "docs" / "how-to" / "hosting.md").read_text()):
        assert (HOSTING / name).is_file()


def test_the_unit_is_one_that_systemd_reads(tmp_path: Path) -> None:
    unit = (HOSTING / "qincodec.service").read_text()
    assert served(started())["trusted_proxies"] == 1
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    path = tmp_path / "qincodec.service"
    path.write_text(unit.replace("/opt/qincodec/bin/mushra", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_containers_fit_each_other_and_the_server() -> None:
    text = (HOSTING / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    services = compose["services"]
    assert set(compose) == {"services", "volumes"}
    known = {
        "build",
        "image",
        "command",
        "environment",
        "volumes",
        "depends_on",
        "healthcheck",
        "restart",
        "ports",
    }
    for service in services.values():
        assert set(service) <= known and ("build" in service) != ("image" in service)
        conditions = service.get("depends_on", {})
        assert set(conditions) <= set(services)
        for other, wanted in conditions.items() if isinstance(conditions, dict) else ():
            assert wanted == {"condition": "service_healthy"} and "healthcheck" in services[other]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source == "./test" or (ROOT / source).is_file()
    server = services["mushra"]
    values = {"SITE": "lab.example.org"}
    command = [re.sub(r"\$\{(\w+):\?\}", lambda match: values[match[1]], word) for word in server["command"]]
    options, unit = served(command), served(started())
    assert options == {**unit, "test": Path("/test"), "host": "0.0.0.0"}
    # What is set by variables is what the command reads.
    group: Any = typer.main.get_command(command_line)
    read = {option.envvar for option in group.commands["serve"].params}
    assert set(server["environment"]) == {"MUSHRA_DATABASE", "MUSHRA_ADMIN_PASSWORD"} <= read
    needed = set(re.findall(r"\$\{(\w+):\?\}", text))
    assert needed == set(re.findall(r"^#   (\w+)=", text, flags=re.MULTILINE))
    assert f"127.0.0.1:{options['port']}{options['prefix']}/healthz" in server["healthcheck"]["test"][-1]
    compile(server["healthcheck"]["test"][-1], "healthcheck", "exec")
    caddy = (HOSTING / "Caddyfile").read_text()
    assert set(services["caddy"]["environment"]) == set(re.findall(r"\{\$(\w+):", caddy))
    assert services["caddy"]["environment"]["SERVER"] == f"mushra:{options['port']}"
    assert f"handle {options['prefix']}*" in caddy
    assert f"location {options['prefix']} " in (HOSTING / "nginx.conf").read_text()


#: Of packages whose module has another name.
MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL", "markdown-it-py": "markdown_it"}
WITHOUT_TORCH = """
import importlib.util, sys
from pathlib import Path

blocked, conftest, test, out = set(sys.argv[1].split(",")), *map(Path, sys.argv[2:])


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


sys.meta_path.insert(0, Blocked())
from mushra.cli.main import app as command_line
from mushra.config.load import load_config
from mushra.server import create_app
from qincodec.core.console import run_command

spec = importlib.util.spec_from_file_location("listeners", conftest)
listeners = importlib.util.module_from_spec(spec)
spec.loader.exec_module(listeners)
app = create_app(load_config(test), test / "results.sqlite")
page = app.test_client().get("/")
assert page.status_code == 200 and b"<script" in page.data
for _ in range(2):
    listeners.Listener(app).take()
app.extensions["mushra"].store.close()


def run(*arguments):
    try:
        run_command(command_line, [*map(str, arguments)], "mushra")
    except SystemExit as end:
        return end.code or 0


assert run("check", test) == 0
assert run("export", test, "--out", out, "--format", "tidy") == 0
assert not blocked & {name.partition(".")[0] for name in sys.modules}
assert run("create", "--reference", test, "--condition", f"a={test}", "--out", test.parent / "new") == 2
"""


def test_a_server_needs_no_torch(make_folder: Callable[..., Path], listener: Any, tmp_path: Path) -> None:
    """With nothing of what hosting/requirements.txt leaves out, it serves and saves a test and exports it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (HOSTING / "requirements.txt").read_text().splitlines()
    wanted = {line for line in lines if not line.startswith("#")}
    assert wanted < set(project["dependencies"])  # the package's versions
    left_out = [re.split("[<>=]", one)[0] for one in set(project["dependencies"]) - wanted]
    modules = {MODULES.get(name, name.replace("-", "_")) for name in left_out} - {"PIL"}  # matplotlib's
    assert {"torch", "transformers", "lightning_fabric", "sklearn"} <= modules
    test = make_folder()
    conftest = ROOT / "tests" / "mushra" / "conftest.py"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, ",".join(modules), conftest, test, tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/support'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "this needs PyTorch (package 'torch'), which is not installed" in done.stderr
    rows = (tmp_path / "out" / "ratings.csv").read_text().splitlines()
    stored = read_ratings(test / "results.sqlite")
    assert len(rows) == len(stored) + 1 and stored["session"].nunique() == 2


def test_the_image_has_the_packages_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    docker = (HOSTING / "Dockerfile").read_text()
    (driver,) = project["optional-dependencies"]["postgresql"]
    assert f'-r /src/docs/hosting/requirements.txt "{driver}"' in docker and "--no-deps /src" in docker
    assert f"'{driver}'" in (ROOT / "docs" / "how-to" / "hosting.md").read_text()
    assert "mushra" in project["scripts"] and 'ENTRYPOINT ["mushra"]' in docker
