"""What is made once for a whole test session, however many processes the tests are spread over."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], dict[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """The folder `name` that `make` has filled, and what it returned (as JSON gives it back)."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    told = folder.with_name(f"{name}.json")
    with FileLock(folder.with_name(f"{name}.lock")):
        if not told.exists():
            folder.mkdir()
            told.write_text(json.dumps(make(folder)), encoding="utf8")
    return folder, json.loads(told.read_text(encoding="utf8"))
