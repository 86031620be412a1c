"""A tiny model that knows four answers by heart, served by an engine and a server in this process."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from support.taught_model import ASKS_FOR_A_TOOL, CALL, KNOWN, TRAINING, WEATHER, Serve, Served, row

from llmf_hydra.config import compose
from llmf_hydra.config.schema import Config
from llmf_hydra.serve.api.app import build
from llmf_hydra.serve.api.server import bound
from llmf_hydra.serve.loading import load
from llmf_hydra.serve.transformers_engine import TransformersEngine


@pytest.fixture(scope="session")
def taught(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training, by the real command line."""
    cwd = tmp_path_factory.mktemp("taught")
    rows = [row(question, content=answer) for question, answer in KNOWN.items()]
    rows.append({**row(ASKS_FOR_A_TOOL, tool_calls=[{"function": CALL}]), "tools": [WEATHER]})
    (cwd / "known.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf8")
    command = [sys.executable, "-m", "llmf_hydra", *TRAINING, "data.dataset=known.jsonl"]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return cwd / "run"


@pytest.fixture(scope="session")
def config(cache: Path) -> Iterator[Callable[..., Config]]:
    """`config("job=api", "model=tiny")`: what a command line is composed to, with the session's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMF_CACHE", str(cache))
        yield lambda *words: compose.typed(compose.composed([*words, "model.infer_dtype=float32"]))


@pytest.fixture(scope="session")
def engine(taught: Path, config: Callable[..., Config]) -> Iterator[TransformersEngine]:
    """Four answers at a time of the model that knows its answers."""
    made = TransformersEngine(load(config("job=api", f"from_run={taught}")), slots=4)
    yield made
    made.close()


@pytest.fixture(scope="session")
def endless(config: Callable[..., Config]) -> Iterator[TransformersEngine]:
    """An untrained model, whose greedy answers go on until their limit."""
    made = TransformersEngine(load(config("job=api", "model=tiny")), slots=4)
    yield made
    made.close()


@pytest.fixture(scope="session")
def serve(config: Callable[..., Config], taught: Path) -> Serve:
    """`serve(engine, "serve.max_concurrent=4")`: within, a server with these settings answers."""

    @contextmanager
    def run(engine: TransformersEngine, *words: str) -> Iterator[Served]:
        cfg = config("job=api", f"from_run={taught}", "serve.port=0", "generation.do_sample=false", *words)
        door = bound(cfg.serve)
        server = uvicorn.Server(uvicorn.Config(build(cfg, engine), log_config=None, lifespan="off"))
        thread = threading.Thread(target=lambda: server.run(sockets=[door]), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Served(f"http://127.0.0.1:{door.getsockname()[1]}", cfg)
        finally:
            server.should_exit = True
            thread.join(15)
            door.close()

    return run


@pytest.fixture(scope="session")
def served(serve: Serve, engine: TransformersEngine) -> Iterator[Served]:
    """The server that most tests share."""
    with serve(
        engine, "serve.max_concurrent=4", "serve.model_name=taught", "serve.max_waiting=16"
    ) as started:
        yield started
