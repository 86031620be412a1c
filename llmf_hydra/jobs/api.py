"""`job=api`: serve a model over HTTP, in OpenAI's protocol."""

from pathlib import Path

from llmf_hydra.config.schema import Config
from llmf_hydra.serve.open import open_engine


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Serve until the process is asked to end. Raises Refused for an address that is taken, before the model loads."""
    from llmf_hydra.serve.api.server import bound, serve  # here: it needs the extra `api`

    with bound(cfg.serve) as door:
        engine = open_engine(cfg, slots=cfg.serve.max_concurrent)
        try:
            serve(cfg, engine, door)
        finally:
            engine.close()
