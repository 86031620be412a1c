"""`job=chat`: talk to a model in the terminal."""

from pathlib import Path

from llmf_hydra.config.schema import Config
from llmf_hydra.serve.open import open_engine
from llmf_hydra.serve.terminal.chat import chat


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Load the model and talk until the user ends it; `out` is where /save puts a file by its bare name."""
    engine = open_engine(cfg, slots=1)
    try:
        chat(cfg, engine, out)
    finally:
        engine.close()
