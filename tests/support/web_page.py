"""A page served by the real command in a folder of its own, and its fields as a visitor finds them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")
PASSWORD = "correct horse battery"


@contextmanager
def served(cwd: Path, environment: dict[str, str], *words: str) -> Iterator[str]:
    """The address of a page that `job=webui` serves with these words; ended as Ctrl-C ends it."""
    env = {**environment, "GRADIO_PASSWORD": PASSWORD}
    command = [sys.executable, "-m", "llmf_hydra", "job=webui", "serve.gradio_server_port=0", *words]
    with (cwd / "page.txt").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield wait_for(lambda: _address(cwd / "page.txt", process))
    finally:
        os.kill(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _address(output: Path, process: "subprocess.Popen[bytes]") -> str | None:
    text = output.read_text(encoding="utf8")
    assert process.poll() is None, text
    found = re.search(r"page: (http://\S+)", text)
    return found[1] if found else None


def wait_for(look: Callable[[], Found | None], seconds: float = 60) -> Found:
    """What a look finds, once it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


class Fields:
    """The fields of a tab of the browser by their ids."""

    def __init__(self, tab):
        self.tab = tab

    def log_in(self, password: str) -> None:
        """Fill in the page before the page."""
        self.tab.wait_for_selector("input[type=password]")
        boxes = self.tab.locator("input:visible")
        boxes.nth(0).fill("me")
        boxes.nth(1).fill(password)
        self.tab.get_by_role("button", name="Login").click()

    def fill(self, name: str, text: str) -> None:
        """Write into a field and leave it."""
        box = self.tab.locator(f"#{name} textarea, #{name} input").first
        box.fill(text)
        box.blur()

    def choose(self, name: str, choice: str, *, exact: bool = True) -> None:
        """Choose from a list, with `exact=False` by a part of what it shows."""
        box = self.tab.locator(f"#{name} input").first
        box.click()
        self.tab.get_by_role("option", name=choice, exact=exact).first.click()

    def click(self, name: str) -> None:
        """Click a button."""
        self.tab.locator(f"#{name}").click()

    def open(self, name: str) -> None:
        """Open one of the page's tabs."""
        self.tab.get_by_role("tab", name=name).click()

    def value(self, name: str) -> str:
        """What a field holds, or a block of code shows."""
        box = self.tab.locator(f"#{name} textarea, #{name} input")
        if box.count():
            return box.first.input_value()
        code = self.tab.locator(f"#{name} .cm-content")
        return code.first.inner_text() if code.count() else ""  # it may be hidden

    def shows(self, name: str, part: str, seconds: float = 60) -> str:
        """Wait until a field holds a text; gives all that it holds."""
        end = time.monotonic() + seconds
        while part not in (value := self.value(name)):
            assert time.monotonic() < end, f"{name} never holds {part!r}, but {value!r}"
            time.sleep(0.1)
        return value
