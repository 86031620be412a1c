"""`make bench`: measure, print JSON, keep the figures of this machine and version, and write the page anew.

python -m benchmarks [--quick] [--only beside bare ...] [--out FILE] [--results FOLDER]

`--quick` leaves the embedded model out. With `--results`, figures are kept and the page is written in that folder.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import beside, data, kept, optimizers, page, rollouts, serving, start, train

QUICK: dict[str, Callable[[], Any]] = {
    "answers": start.answers,
    "start": start.measure,
    "tiny": lambda: {stage: train.measure(stage, "tiny", steps=20) for stage in ("sft", "dpo")},
}
EMBEDDED: dict[str, Callable[[], Any]] = {
    "optimizers": lambda: optimizers.measure("smollm2", steps=50),
    "data": data.measure,
    "beside": lambda: {**beside.measure("smollm2"), "grpo": beside.beside("grpo", "smollm2", steps=3)},
    "bare": lambda: {part: _bare(part) for part in ("sft_lora", "sft_full", "dpo_lora")},
    "rollouts": lambda: rollouts.measure("smollm2"),
    "serving": lambda: serving.measure("smollm2"),
    "smollm2": lambda: {stage: train.measure(stage, "smollm2", steps=5) for stage in ("sft", "dpo")},
}


def _bare(part: str) -> Any:
    """Our steps beside a bare PyTorch loop, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.bare", part, "smollm2"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the benchmarks one after another: two at once would measure each other. Exit code 1 for a slow answer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the tiny model only")
    parser.add_argument("--only", nargs="+", choices=[*QUICK, *EMBEDDED], help="these parts")
    parser.add_argument("--out", type=Path, help="file the JSON is written to")
    parser.add_argument("--results", type=Path, help="folder in which figures are kept; benchmarks/results")
    asked = parser.parse_args()
    parts = QUICK if asked.quick else QUICK | EMBEDDED
    figures = {name: measure() for name, measure in parts.items() if asked.only is None or name in asked.only}
    result = {"machine": kept.kind(), "version": kept.version(), **figures}
    text = json.dumps(result, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf8")
    file = kept.keep(figures, asked.results or kept.RESULTS)
    written = page.write(asked.results or kept.RESULTS, asked.results or page.DOCS)
    print(f"kept in {file}; written: {', '.join(map(str, written))}", file=sys.stderr)
    late = [words for words, taken in figures.get("answers", {}).items() if taken["too_slow"]]
    if late:
        sys.exit(f"slower than allowed: {', '.join(late)}")


if __name__ == "__main__":
    main()
