"""The data engine beside the bare tokenizer: rows a second, later starts, streaming, packing and memory.

`python -m benchmarks.data FILE CACHE WHAT` is one process of it.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

ROWS = 20_000
PROCESSES = 2
DEMO_TEXT = Path(__file__).parents[1] / "data" / "demo_text.jsonl"


def measure(repeats: int = 3) -> dict[str, Any]:
    """Medians of `repeats` on alpaca rows with SmolLM2's tokenizer; memory also on four times the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, more = _alpaca(folder / "rows.jsonl", ROWS), _alpaca(folder / "more.jsonl", 4 * ROWS)
        runs = [_child(rows, folder / "cache", "beside the bare tokenizer") for _ in range(repeats)]
        runs = [{key: statistics.median(run[key] for run in runs) for key in runs[0]}]
        runs += [_child(file, folder / file.stem, "alone") for file in (rows, more)]
    return {**runs[0], f"{ROWS}_rows": runs[1], f"{4 * ROWS}_rows": runs[2]}


def _alpaca(path: Path, rows: int) -> Path:
    """Rows of random words: questions of 8 to 70 words, answers of 20 to 160."""
    words = [word for line in DEMO_TEXT.open(encoding="utf8") for word in json.loads(line)["text"].split()]
    chance = random.Random(0)

    def some(least: int, most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(least, most)))

    with path.open("w", encoding="utf8") as out:
        for number in range(rows):
            row = {
                "instruction": some(8, 30),
                "input": some(5, 40) if number % 2 else "",
                "output": some(20, 160),
            }
            out.write(json.dumps(row) + "\n")
    return path


def _child(rows: Path, cache: Path, what: str) -> dict[str, float]:
    """A process of its own: what the bare tokenizer leaves behind in memory slows down what comes after it."""
    words = [sys.executable, "-m", "benchmarks.data", str(rows), str(cache), what]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def _seconds(work: Callable[[], Any]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def _own_memory_mb() -> int:
    """What this process holds of its own, mapped files not counted."""
    status = Path("/proc/self/status").read_text(encoding="utf8")
    return int(status.partition("RssAnon:")[2].split()[0]) // 1024


def main(file: Path, cache: Path, what: str) -> dict[str, float]:
    """Measure in this process."""
    os.environ["LLMF_CACHE"] = str(cache)
    from transformers import AutoTokenizer

    from llmf_hydra.config.groups.data import DataConfig
    from llmf_hydra.config.groups.generation import GenerationConfig
    from llmf_hydra.data.prepare import Prepared, prepare
    from llmf_hydra.models.builtin import smollm2 as embedded

    model = embedded.ready()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def ready(packing: bool = False, **fields: Any) -> Prepared:
        return prepare(
            DataConfig(dataset=str(file), **fields), "dialogue", tokenizer, GenerationConfig(), 0, packing
        )

    def anew(processes: int) -> float:
        shutil.rmtree(cache, ignore_errors=True)
        return _seconds(lambda: ready(preprocessing_num_workers=processes))

    if what == "alone":
        before = _own_memory_mb()
        with _Peak() as peak:
            made = anew(1)
            for _ in ready().train:
                pass
        return {
            "rows_per_s_1_process": round(sum(1 for _ in file.open("rb")) / made),
            "memory_mb": peak.mb - before,
            "second_start_s": round(_seconds(lambda: next(iter(ready().train))), 2),
            "streaming_start_s": round(_seconds(lambda: next(iter(ready(streaming=True).train))), 2),
            "packs_full": (ready(packing=True).report.packed or {})["full"],
        }
    ours = anew(PROCESSES)
    texts = _texts(tokenizer, file)
    bare = _seconds(lambda: tokenizer(texts))
    return {
        "bare_tokenizer_rows_per_s": round(len(texts) / bare),
        f"rows_per_s_{PROCESSES}_processes": round(len(texts) / ours),
        "of_bare": round(bare / ours, 3),
    }


class _Peak:
    """The most memory of its own that this process holds at any time within, looked at every 20 ms."""

    def __enter__(self) -> Self:
        self.mb, self._ended = 0, threading.Event()
        self._looking = threading.Thread(target=self._look)
        self._looking.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.mb = max(self.mb, _own_memory_mb())

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._looking.join()


def _texts(tokenizer: Any, file: Path) -> list[str]:
    """The same dialogues as plain texts, as the template writes them."""
    rows = [json.loads(line) for line in file.open(encoding="utf8")]
    asked = [f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"] for row in rows]
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}],
            tokenize=False,
        )
        for question, row in zip(asked, rows, strict=True)
    ]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
