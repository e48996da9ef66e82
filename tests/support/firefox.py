"""Debian's Firefox, driven by WebDriver BiDi, and a sound server of its own whose devices come and go.

BiDi is JSON over a WebSocket; the few commands that a listener needs do not warrant a package.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIREFOX = "firefox-esr"
#: What a new profile would ask or fetch.
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}
#: Keys by their name in DOM events, as WebDriver writes them.
KEYS = {
    "Enter": "\ue006",
    "Space": " ",
    "Tab": "\ue004",
    "Shift": "\ue008",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "End": "\ue010",
    "Home": "\ue011",
}


class Sound:
    """A PulseAudio server in ``folder``; it has no device until one is plugged in.

    ``defaults``: lines of its ``daemon.conf``, where Chromium takes rate and channels from.
    """

    def __init__(self, folder: Path, *defaults: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        settings = folder / "daemon.conf"
        settings.write_text("\n".join([*defaults, ""]))
        self._folder = folder
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PULSE_SERVER": f"unix:{folder}/pulse.sock",
        }
        modules = f"module-native-protocol-unix auth-anonymous=1 socket={folder}/pulse.sock"
        arguments = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes"]
        with (folder / "pulse.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["pulseaudio", *arguments, "-L", modules],
                env={**self.environment, "PULSE_SERVER": "", "PULSE_CONFIG": str(settings)},
                stdout=log,
                stderr=log,
            )
        self._module: str | None = None
        while subprocess.run(["pactl", "info"], env=self.environment, capture_output=True).returncode:
            if self._process.poll() is not None:
                raise RuntimeError(f"pulseaudio ended: {(folder / 'pulse.log').read_text()}")
            time.sleep(0.05)

    def _pactl(self, *arguments: str) -> str:
        command = ["pactl", *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def plug(self, *settings: str) -> None:
        """A device that plays into nothing, in real time; settings as of PulseAudio's null sink."""
        self._module = self._pactl("load-module", "module-null-sink", "sink_name=phones", *settings).strip()

    @contextmanager
    def recorder(self, *options: str) -> Iterator[Any]:
        """A pipe with all that the device plays; options as of ``parec``."""
        command = ["parec", "--device=phones.monitor", "--latency-msec=50", *options]
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE) as process:
            try:
                yield process.stdout
            finally:
                process.terminate()

    def unplug(self) -> None:
        assert self._module is not None
        self._pactl("unload-module", self._module)
        self._module = None

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class _Socket:
    """Text messages over a WebSocket (RFC 6455), as a client."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        )
        head += f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        self._socket.sendall(head.encode())
        self._file = self._socket.makefile("rb")
        status = self._file.readline()
        if b" 101 " not in status:
            raise ConnectionError(f"no WebSocket: {status!r}")
        while self._file.readline() != b"\r\n":
            pass

    def send(self, text: str) -> None:
        data, mask = text.encode(), secrets.token_bytes(4)
        size = len(data)
        if size < 126:
            head = bytes([0x81, 0x80 | size])
        elif size < 65536:
            head = bytes([0x81, 0xFE]) + struct.pack(">H", size)
        else:
            head = bytes([0x81, 0xFF]) + struct.pack(">Q", size)
        self._socket.sendall(head + mask + bytes(b ^ mask[n % 4] for n, b in enumerate(data)))

    def receive(self) -> str:
        data, final = b"", False
        while not final:
            first, size = self._file.read(2)
            final = bool(first & 0x80)
            if size == 126:
                (size,) = struct.unpack(">H", self._file.read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._file.read(8))
            payload = self._file.read(size)
            if first & 0x0F in (0, 1):
                data += payload
            elif first & 0x0F == 8:
                raise ConnectionError("Firefox closed the connection")
            else:
                final = False  # a ping; Firefox sends none
        return data.decode()

    def close(self) -> None:
        self._socket.close()


class Firefox:
    """A window of Firefox with a profile of its own in ``folder``, of 1280 x 860 pixels."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        profile = folder / "profile"
        profile.mkdir(parents=True)
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()
        ]
        (profile / "user.js").write_text("\n".join(lines))
        program = shutil.which(FIREFOX)
        assert program is not None
        arguments = ["--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(profile)]
        log = folder / "firefox.log"
        with log.open("wb") as file:
            self._process = subprocess.Popen([program, *arguments], env=environment, stdout=file, stderr=file)
        ready = re.compile(r"WebDriver BiDi listening on ws://127\.0\.0\.1:(\d+)")
        while not (found := ready.search(log.read_text(errors="replace"))):
            if self._process.poll() is not None:
                raise RuntimeError(f"Firefox ended: {log.read_text(errors='replace')}")
            time.sleep(0.05)
        self._numbers = itertools.count(1)
        self._socket = _Socket(int(found[1]), "/session")
        self.errors: list[str] = []
        self.version = self._call("session.new", capabilities={})["capabilities"]["browserVersion"]
        self._call("session.subscribe", events=["log.entryAdded"])
        # The first window has its focus in the address bar.
        self._context = self._call("browsingContext.create", type="window")["context"]
        self._call("browsingContext.activate", context=self._context)
        size = {"width": 1280, "height": 860}
        self._call("browsingContext.setViewport", context=self._context, viewport=size)

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.receive())
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.errors.append(message["params"]["text"])
            if message.get("id") == number:
                if message["type"] == "error":
                    raise RuntimeError(f"{method}: {message['error']}: {message['message']}")
                return message["result"]

    def goto(self, url: str) -> None:
        self._call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, of what it promises if it is a promise; as JSON has it."""
        answer = self._call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))",
            target={"context": self._context},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def wait(self, condition: str, timeout_s: float = 600) -> Any:
        """Waits until a JavaScript expression is true; its value."""
        return self.evaluate(
            "new Promise((resolve, reject) => {"
            f"  const late = performance.now() + {1000 * timeout_s};"
            "  const look = () => {"
            f"    const value = ({condition});"
            "    if (value) resolve(value);"
            "    else if (performance.now() > late)"
            f"      reject(new Error({json.dumps(condition)} + ' stays false: ' + document.body.innerText));"
            "    else setTimeout(look, 20);"
            "  };"
            "  look();"
            "})"
        )

    def _actions(self, kind: str, actions: list[dict[str, Any]]) -> None:
        source = {"type": kind, "id": kind, "actions": actions}
        self._call("input.performActions", context=self._context, actions=[source])

    def place(self, selector: str, n: int = 0, across: float = 0.5, up: float = 0.5) -> tuple[int, int]:
        """Where in the window a place on the n-th element is, fractions of its size; scrolled there."""
        found = f"document.querySelectorAll({json.dumps(selector)})[{n}]"
        self.wait(f"{found}?.getClientRects().length")
        self.evaluate(f"{found}.scrollIntoView({{ block: 'center' }})")
        box = self.evaluate(f"{found}.getBoundingClientRect().toJSON()")
        return round(box["x"] + across * box["width"]), round(box["y"] + (1 - up) * box["height"])

    def drag(self, *places: tuple[int, int]) -> None:
        """The left button goes down at the first place and up at the last."""
        moves = [{"type": "pointerMove", "x": x, "y": y, "duration": 30} for x, y in places]
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        self._actions("pointer", [moves[0], down, *moves[1:], up])

    def click(self, selector: str, n: int = 0, across: float = 0.5, up: float = 0.5) -> None:
        self.drag(self.place(selector, n, across, up))

    def press(self, *keys: str) -> None:
        """Keys one after the other; "Shift+ArrowUp" together."""
        actions = []
        for key in keys:
            held = [KEYS.get(part, part) for part in key.split("+")]
            actions += [{"type": "keyDown", "value": one} for one in held]
            actions += [{"type": "keyUp", "value": one} for one in reversed(held)]
        self._actions("key", actions)

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()
