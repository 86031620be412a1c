"""The real command line as the fixture `cli` gives it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]
