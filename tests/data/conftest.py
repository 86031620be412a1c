"""A small tokenizer with a fixed vocabulary, and a cache of each test's own."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import make_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Its template is ChatML without marks."""
    return make_tokenizer()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test alone."""
    monkeypatch.setenv("LLMF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for module in (
        "huggingface_hub.constants",
        "datasets.config",
    ):  # which read the environment when imported
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """`write(rows)` puts rows into a jsonl file and gives its path."""

    def written(rows: Iterable[Any], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return written
