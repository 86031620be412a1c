"""Runs on eight short rows, each longer than the one before, so that no two batches are alike."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.parameter_runs import ROWS, Changes, Outcome, Train, Work, config, trained, work


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rows."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    sizes = range(1, ROWS + 1)
    text = [{"instruction": "Say it.", "output": " ".join(["the sea is wide"] * size)} for size in sizes]
    file.write_text("\n".join(map(json.dumps, text)), encoding="utf8")
    return file


@pytest.fixture(scope="session")
def runs_done() -> Iterator[dict[str, Outcome]]:
    """The runs by what they change. They stay: a collection of garbage need not look at them."""
    yield {}
    gc.unfreeze()


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
            gc.freeze()
            runs_done[name] = trained(config(rows, changes), tmp_path_factory.mktemp("run"))
        return runs_done[name]

    return run


@pytest.fixture
def worked(rows: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """`worked("name", {...})` does a whole job in this process and gives its folder."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)

    def run(name: str, changes: Changes) -> Path:
        assert work(config(rows, changes), tmp_path / name) == 0
        return tmp_path / name

    return run
