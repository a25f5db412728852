"""A headless Chromium, driven through a pipe: what a page does in a browser, without a further package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--hide-scrollbars"),
    # WebGL on a machine without graphics.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"),
)
_PATIENCE = 60.0  # s


def find_chromium() -> str | None:
    """Path of a browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """Start a browser and end it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        commands, answers = os.pipe(), os.pipe()
        theirs = [os.dup(commands[0]), os.dup(answers[1])]
        for descriptor in (commands[0], answers[1]):
            os.close(descriptor)

        def wire() -> None:
            # The browser reads from 3 and writes to 4, which may be anything here.
            high = [os.dup2(descriptor, 100 + k) for k, descriptor in enumerate(theirs)]
            for k, descriptor in enumerate(high):
                os.dup2(descriptor, 3 + k)

        process = subprocess.Popen(
            [executable, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=wire,
        )
        for descriptor in theirs:
            os.close(descriptor)
        try:
            yield Browser(answers[0], commands[1])
        finally:
            process.kill()
            process.wait()
            os.close(answers[0])
            os.close(commands[1])


class Browser:
    """One page of a browser.

    Attributes
    ----------
    complaints : list of str
        Errors and warnings of the page so far.
    """

    def __init__(self, incoming: int, outgoing: int):
        self._incoming, self._outgoing = incoming, outgoing
        self._number, self._buffer, self._session = 0, b"", ""
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._outgoing, json.dumps(message).encode() + b"\0")
        number = self._number
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._incoming], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._incoming, 1 << 20) if ready else b""
            if not piece:
                raise TimeoutError("the browser does not answer")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, facts: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(facts["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.complaints.append(facts["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(part.get("value")) for part in facts["args"]))

    def open(self, path: pathlib.Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Open a file in a window of some size, and wait until it is drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("document.readyState === 'complete'")
        self.draw()

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression, awaited if it is a promise."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    def draw(self) -> None:
        """Wait for two frames of the display."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript condition holds."""
        end = time.monotonic() + _PATIENCE
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key: a character, or a name such as ArrowRight."""
        text = {"text": " " if key == " " else "\r"} if key in (" ", "Enter") else {}
        code = {" ": 32, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37}[key]
        for kind in ("keyDown", "keyUp"):
            extra = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **extra)

    def picture(self, area: dict[str, float] | None = None) -> bytes:
        """A part of the page, or all of it, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        area = area or {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        clip = area | {"scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(data["data"])
