"""The server."""

from llmf_hydra.config.schema import Config
from llmf_hydra.serve.engine import Engine


def serve(cfg: Config, engine: Engine) -> None:
    """Serve until the process is asked to end."""
    raise NotImplementedError
