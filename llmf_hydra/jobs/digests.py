"""Digests of all that decides a result beside the config. Those of weights take long: they are remembered, and
computed beside the training."""

import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from llmf_hydra import paths
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.jobs.assemble import Inputs
from llmf_hydra.models.ref import locate
from llmf_hydra.runs.manifest import digest_of_file, digest_of_text

Digests = dict[str, str | None]


def digests_of_inputs(inputs: Inputs) -> Digests:
    """Digests of the rows, the tokenizer and the template."""
    return {
        "data": inputs.rows.report.digest,
        "tokenizer": digest_of_text(json.dumps(inputs.tokenizer.get_vocab(), sort_keys=True)),
        "template": digest_of_text(str(inputs.tokenizer.chat_template)),
    }


def digests_of_weights(cfg: Config) -> Digests:
    """Digests of the model and the adapters; None for what isn't a local folder."""
    adapters = {f"adapter {name}": _folder(name) for name in names(cfg.model.adapter_name_or_path)}
    return {"model": _folder(locate(cfg.model)), **adapters}


def in_background(compute: Callable[[], Digests]) -> "Future[Digests]":
    """Start computing in a thread; hashing lets other threads run."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
    future = pool.submit(compute)
    pool.shutdown(wait=False)
    return future


def _folder(name: str) -> str | None:
    """SHA-256 over names and contents of a folder's weight files."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    parts = [f"{file.name}:{_file(file)}" for file in sorted(folder.glob("*.safetensors"))]
    return digest_of_text("\n".join(parts))


def _file(file: Path) -> str:
    """The digest of a file, remembered as long as its size and its time of change stay."""
    known, stat = paths.cache_dir() / "digests" / f"{digest_of_text(str(file.resolve()))}.json", file.stat()
    state = [stat.st_size, stat.st_mtime_ns]
    try:
        saved: dict[str, object] = json.loads(known.read_text(encoding="utf8"))
        if saved["state"] == state:
            return str(saved["digest"])
    except (OSError, ValueError, KeyError):  # not there, or half written by a process that died
        pass
    digest = digest_of_file(file)
    known.parent.mkdir(parents=True, exist_ok=True)
    fresh = known.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"file": str(file), "state": state, "digest": digest}), encoding="utf8")
    fresh.replace(known)
    return digest
