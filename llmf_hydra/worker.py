"""The worker: a process that reads a run's `config.yaml` and does its job, alone or as one of several.

    python -m llmf_hydra.worker RUN_FOLDER [--resume]

Started by the launcher, never by hand. Imports of torch and the like come with the job.
"""

import logging
import os
import resource
import socket
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from llmf_hydra.config import record
from llmf_hydra.config.schema import Config
from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, REFUSED, LlmfError, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import ranks
from llmf_hydra.runs import signals as interrupt

ERROR = "error.txt"  # the traceback of a failed run


def main(out: Path, *, resume: bool) -> int:
    """Do the job of a run folder; sets its status and returns the exit code."""
    interrupt.install()
    _note(
        out,
        status="running",
        started=runs.now(),
        ended=None,
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_started=runs.process_identity(os.getpid()),
    )
    cfg = record.load(out / runs.CONFIG)
    _set_up_logging(cfg)
    code = _guarded(cfg, out, resume)
    status = {DONE: "done", INTERRUPTED: "killed"}.get(code, "failed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts it in kB
    _note(out, status=status, ended=runs.now(), exit_code=code, peak_memory_mb=peak)
    return code


def _note(out: Path, **values: Any) -> None:
    if ranks.is_main():
        runs.update_manifest(out, **values)


def _guarded(cfg: Config, out: Path, resume: bool) -> int:
    """Run the job and turn each way it can end into an exit code and one clear message."""
    try:
        import_module(f"llmf_hydra.jobs.{cfg.job.name}").run(cfg, out, resume=resume)
    except interrupt.Interrupted:
        if ranks.is_main():
            print(f"interrupted; go on with: llmf resume {os.path.relpath(out)}", file=sys.stderr)
        return INTERRUPTED
    except Refused as refused:
        _note(out, reason=masked_text(str(refused.problems[0])))
        if ranks.is_main():  # each process finds the same
            print(masked_text(refused.report()), file=sys.stderr)
        return REFUSED
    except LlmfError as error:
        _note(out, reason=masked_text(str(error)))
        print(masked_text(f"failed{_which()}: {error}"), file=sys.stderr)
        return FAILED
    except Exception as error:
        file = out / (ERROR if ranks.is_main() else f"error-{ranks.rank()}.txt")
        file.write_text(masked_text(traceback.format_exc()), encoding="utf8")
        what = masked_text(f"{type(error).__name__}: {error}")
        _note(out, reason=what)
        print(f"failed{_which()}: {what}\n  the traceback is in {file}", file=sys.stderr)
        return FAILED
    return DONE


def _which() -> str:
    """The process that speaks, where there are several."""
    return f" (process {ranks.rank()})" if ranks.world_size() > 1 else ""


def _set_up_logging(cfg: Config) -> None:
    launch = cfg.launch
    level = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING}[launch.verbosity]
    if not ranks.is_main():  # what all say is said once
        level = max(level, logging.WARNING)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    ours = logging.getLogger("llmf_hydra")
    ours.setLevel(level)
    ours.propagate = False
    plain = logging.StreamHandler(sys.stdout)
    plain.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(plain)
    libraries = {"DEBUG": "info", "INFO": "error", "WARN": "error"}[launch.verbosity]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", libraries)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # Transformers and Datasets look at it too
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if launch.verbosity != "DEBUG":  # deprecations inside the libraries are no news for a user
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
        # TRL imports it wherever it is installed; that this is a CPU is said by the run's own lines.
        logging.getLogger("DeepSpeed").addFilter(
            lambda record: "accelerator to CPU" not in record.getMessage()
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Transformers and TRL import wandb wherever it is installed, for most of a second. Our tracker has its own process.
    sys.modules["wandb"] = None  # type: ignore[assignment]
    if cfg.model.hf_hub_token is not None:
        os.environ["HF_TOKEN"] = cfg.model.hf_hub_token


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), resume="--resume" in sys.argv[2:]))
