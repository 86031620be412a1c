"""`job=webui`: serve the page until it is stopped; runs that were started from it go on."""

import signal
import threading
from pathlib import Path

from llmf_hydra.config.schema import Config
from llmf_hydra.webui.server import Server


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Serve the page for the runs below the working directory. Raises TrainingFailed where it can't be served."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server = Server(cfg.serve, Path.cwd())
    try:
        print(f"page: {server.url}  (Ctrl-C ends the page; runs go on)", flush=True)
        if server.share_url is not None:
            print(f"public, with the password: {server.share_url}", flush=True)
        ended.wait()
    finally:
        server.close()
