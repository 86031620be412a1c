"""The dialogue in the terminal."""

import sys
from pathlib import Path

from llmf_hydra.config.schema import Config
from llmf_hydra.data.rows import Message
from llmf_hydra.serve.engine import Decoding, Engine, Request


def chat(cfg: Config, engine: Engine, out: Path) -> None:
    """Answer each line of standard input until it ends."""
    history: list[Message] = []
    for line in sys.stdin:
        history.append({"role": "user", "content": line.strip()})
        text = ""
        for piece in engine.stream(Request(engine.prompt(history), Decoding.of(cfg.generation))):
            print(piece.text, end="", flush=True)
            text += piece.text
        print()
        history.append({"role": "assistant", "content": text})
