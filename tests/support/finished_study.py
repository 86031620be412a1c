"""What the fixture `study` gives: a real study that is over."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FinishedStudy:
    """Six trials: three seeds of two learning rates, the last of which was pruned."""

    folder: Path
    said: str
    trials: list[dict[str, Any]]  # best first
