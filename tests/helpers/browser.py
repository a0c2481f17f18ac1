# SPDX-License-Identifier: Apache-2.0
"""A page in headless Chromium, driven through two pipes (`--remote-debugging-pipe`)."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="there is no node here")
KEY_CODES = {" ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
KEY_CODES |= {"ArrowUp": 38, "ArrowDown": 40, "Tab": 9, "Delete": 46}
# The browser reads from file descriptor 3 and writes to 4.
START = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3]]
for descriptor, pipe in enumerate(pipes, 3):
    os.dup2(pipe, descriptor)
os.execv(sys.argv[3], sys.argv[3:])
"""
WAIT = 60  # seconds; the machine may be busy


class Page:
    """A tab of a browser of its own."""

    def __init__(self, profile):
        self._numbers = itertools.count(1)
        self.errors = []  # exceptions of the page, and what it could not load
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
        pipes = to_browser, from_browser
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, pipes), CHROMIUM, *flags]
            + [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
            + ["--disable-dev-shm-usage", "about:blank"],
            pass_fds=pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._session = b"", None
        targets = self.call("Target.getTargets")["targetInfos"]
        (page,) = (t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """The result of a method of the DevTools protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(answer["params"])
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])

    def _message(self):
        while b"\0" not in self._buffer:
            read = os.read(self._read, 2**20)
            assert read, "the browser has ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path):
        """Load a file; `requests` then lists what the page asked for."""
        self.requests = []
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete'")

    def eval(self, expression):
        """The JSON value of an expression; a promise is awaited."""
        options = {"returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition):
        """Wait until an expression is true."""
        end = time.monotonic() + WAIT
        while not self.eval(f"Boolean({condition})"):
            assert time.monotonic() < end, f"{condition}: not within {WAIT} s"
            time.sleep(0.02)

    def press(self, key):
        """Press and release a key, which types it if it is a character."""
        what = {"key": key, "windowsVirtualKeyCode": KEY_CODES.get(key, 0)}
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **what, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def click(self, selector):
        """Click the middle of an element."""
        where = self.eval(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return {x: b.x + b.width / 2, y: b.y + b.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "button": "left", "clickCount": 1} | where
            self.call("Input.dispatchMouseEvent", **event)

    def show(self, *, width, height=900, dark=False):
        """Set the size of the window and the colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path):
        """Write a PNG of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        """End the browser."""
        with contextlib.suppress(OSError):
            os.close(self._write)  # the browser ends when nobody can command it
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
