"""A headless Chromium that a test drives: pages that run, are pointed at and are waited for. It speaks the DevTools protocol over pipes."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe")
_IN, _OUT = 3, 4
"""The descriptors at which Chromium reads commands and writes replies."""
_SILENT_SECONDS = 60


class Browser:
    """A browser with pages; a context manager that ends it."""

    def __init__(self, profile: Path) -> None:
        reads, writes = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (reads[0], writes[1])]  # away from 3 and 4

        def wire() -> None:
            os.dup2(theirs[0], _IN)
            os.dup2(theirs[1], _OUT)

        command = [str(BROWSER), *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, close_fds=False, preexec_fn=wire, **quiet)
        for end in (*theirs, reads[0], writes[1]):
            os.close(end)
        self._commands, self._replies = reads[1], writes[0]
        self._numbers = itertools.count(1)
        self._rest = b""

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._commands)
        os.close(self._replies)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its reply; events are dropped."""
        number = next(self._numbers)
        sent = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._commands, json.dumps(sent).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._replies], [], [], _SILENT_SECONDS)[0], f"the browser said nothing for {_SILENT_SECONDS} s"
            more = os.read(self._replies, 2**16)
            assert more, "the browser has ended"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def page(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> "Page":
        """Open an address in a tab of a size in CSS pixels and return it when it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, target, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        page.call("Page.navigate", url=address)
        page.wait("location.href != 'about:blank' && document.readyState == 'complete'")
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        """Wait until a JavaScript condition is true."""
        look = f"const look = () => ({condition}) ? tell(true) : performance.now() > end ? tell(false) : setTimeout(look, 20)"
        promise = f"new Promise((tell) => {{ const end = performance.now() + {1000 * seconds}; {look}; look(); }})"
        assert self.evaluate(promise), f"not in {seconds:g} s: {condition}"

    def point_at(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Scroll an element into view and move the mouse to a place in it, as shares of its width and height."""
        box = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{box}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
        x, y = self.evaluate(
            f"(() => {{ const b = {box}.getBoundingClientRect(); return [b.x + b.width * {across}, b.y + b.height * {down}] }})()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """Save what is on screen, or the whole page, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))
        return path

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)
