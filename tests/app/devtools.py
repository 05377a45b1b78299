"""A page in headless Chromium under real keys and clicks, through the browser's debugging pipe.

Keys that a script makes up are not those of a person: no default action follows them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.app.browser import CHROMIUM, FLAGS

_KEYS = {"Enter": 13, "Escape": 27, "Tab": 9}
_PATIENCE = 30.0  # seconds until something that must happen is given up
_EXEC = """import os, sys
os.dup2(int(sys.argv[1]), 3), os.dup2(int(sys.argv[2]), 4)  # where Chromium reads and writes
os.execv(sys.argv[3], sys.argv[3:])
"""


class Person:
    """Somebody before a page, who presses keys and reads what is there."""

    def __init__(self, inbox: int, outbox: int) -> None:
        self._inbox, self._outbox, self._count, self._read = inbox, outbox, 0, b""
        self._session: dict[str, str] = {}

    def open(self, address: str) -> None:
        """Go to a page and wait until it has loaded."""
        target = self._call("Target.createTarget", url=address)["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def reads(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for an expression to become true."""
        end = time.monotonic() + _PATIENCE
        while not self.reads(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """One of Enter, Escape and Tab."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        down = {"type": "keyDown", "text": "\r"} if key == "Enter" else {"type": "rawKeyDown"}
        self._call("Input.dispatchKeyEvent", **named, **down)
        self._call("Input.dispatchKeyEvent", **named, type="keyUp")

    def click(self, selector: str) -> None:
        """The middle of the first element that a selector names, scrolled to where it can be seen."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.reads(f"{element}.scrollIntoView({{block: 'center'}})")
        x, y, w, h = self.reads(
            f"(({{x, y, width, height}}) => [x, y, width, height])({element}.getBoundingClientRect())"
        )
        for event in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=event, x=x + w / 2, y=y + h / 2, button="left", clickCount=1)

    def _call(self, method: str, **params: Any) -> Any:
        self._count += 1
        asked = {"id": self._count, "method": method, "params": params, **self._session}
        os.write(self._outbox, json.dumps(asked).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                more = os.read(self._inbox, 1 << 16)
                assert more, "the browser has gone"
                self._read += more
            line, _, self._read = self._read.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._count:
                assert "result" in answer, answer
                return answer["result"]


@contextmanager
def person(page: Path, profile: Path) -> Iterator[Person]:
    """Somebody before a page, as it is, in a window of 1440 by 1000 pixels."""
    assert CHROMIUM is not None
    flags = [flag for flag in FLAGS if flag != "--dump-dom"]
    words = [CHROMIUM, *flags, "--remote-debugging-pipe", "--window-size=1440,1000", f"--user-data-dir={profile}"]
    (theirs, outbox), (inbox, ours) = os.pipe(), os.pipe()
    command = [sys.executable, "-c", _EXEC, str(theirs), str(ours), *words, "about:blank"]
    with subprocess.Popen(command, pass_fds=(theirs, ours), stderr=subprocess.DEVNULL) as browser:
        os.close(theirs)
        os.close(ours)
        try:
            somebody = Person(inbox, outbox)
            somebody.open(page.as_uri())
            yield somebody
        finally:
            os.close(inbox)
            os.close(outbox)  # a browser whose pipe is shut goes
            try:
                browser.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                browser.kill()
