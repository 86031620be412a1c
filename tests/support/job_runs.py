"""Jobs run in this process on a run folder of their own, as a worker does them, after the launcher's checks."""

from importlib import import_module
from pathlib import Path

from llmf_hydra import refusals
from llmf_hydra.config import compose, record
from llmf_hydra.config.conf_files import shipped_values
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.manifest import first_manifest


def run_job(out: Path, *words: str, model: str | None = "tiny", resume: bool = False) -> Path:
    """Check the config of a command line and do its job in the new folder `out`. Raises Refused."""
    cfg, found = _checked(*words, model=model)
    if found:
        raise Refused(found)
    if not resume:
        runs.create(out, record.dump(cfg), first_manifest(cfg, list(words), None))
    import_module(f"llmf_hydra.jobs.{cfg.job.name}").run(cfg, out, resume=resume)
    return out


def refused(*words: str, model: str | None = "tiny") -> list[str]:
    """What the launcher says is wrong with a command line."""
    return [str(problem) for problem in _checked(*words, model=model)[1]]


def _checked(*words: str, model: str | None) -> tuple[Config, list[Problem]]:
    composed = compose.composed([*([f"model={model}"] if model else []), *words])
    cfg = compose.typed(composed)
    shipped = shipped_values(composed.hydra.runtime.choices)
    return cfg, refusals.problems(cfg, shipped, words=composed.hydra.overrides.task)
