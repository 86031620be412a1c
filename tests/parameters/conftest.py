"""Runs on eight short rows, each longer than the one before, so that no two batches are alike."""

import json
from pathlib import Path

import pytest
from parameter_runs import ROWS, Changes, Outcome, Train, config, trained


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rows."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    text = [{"instruction": "Say it.", "output": " ".join(["the sea is wide"] * n)} for n in range(1, ROWS + 1)]
    file.write_text("\n".join(map(json.dumps, text)), encoding="utf8")
    return file


@pytest.fixture(scope="session")
def runs_done() -> dict[str, Outcome]:
    return {}


@pytest.fixture
def train(
    rows: Path,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
    runs_done: dict[str, Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> Train:
    """`train({"method.lora_rank": 4})` trains and gives the Outcome."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))

    def run(changes: Changes) -> Outcome:
        name = repr(sorted(changes.items()))
        if name not in runs_done:
            runs_done[name] = trained(config(rows, changes), tmp_path_factory.mktemp("run"))
        return runs_done[name]

    return run
