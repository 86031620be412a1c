"""The worker: a process that reads a run's `config.yaml` and does its job, alone or as one of several.

    python -m llmf_hydra.worker RUN_FOLDER [--resume]

Started by the launcher, never by hand. Imports of torch and the like come with the job, or before the fork:

    python -m llmf_hydra.worker --serve DESCRIPTOR      the server of warm workers, listening there
"""

import logging
import os
import resource
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from llmf_hydra import optional, terminal
from llmf_hydra.config import record
from llmf_hydra.config.choices import JOBS, METHODS, STAGES
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.schema import Config
from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, PRUNED, REFUSED, LlmfError, Pruned, Refused
from llmf_hydra.runs import disk, fork_server, imports, ranks
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import signals as interrupt

SERVE = "--serve"
LIBRARIES = (
    "accelerate",
    "datasets",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "peft",
    "tokenizers",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
)
FORKED = ("train", "check", "predict", "evaluate", "export")
# Warnings of PEFT's that don't apply: embeddings are saved where they were resized, as they must be; what ties mean
# is said in a sentence of ours (methods/adapters.py), and merging unties them (models/adapters.py); GPT-2's layers hold
# their weights transposed, which it sees.
PEFT_SAYS = (
    "Setting `save_embedding_layers` to `True`",
    "Model (has|with) `tie_word_embeddings=True`",
    "Input and output embeddings are no longer tied after merging",
    "fan_in_fan_out is set to False",
)
ERROR = "error.txt"  # the traceback of a failed run


def main(out: Path, *, resume: bool, warm: bool = False) -> int:
    """Do the job of a run folder; sets its status and returns the exit code. `warm` says that it was forked."""
    interrupt.install()
    terminal.outlive_readers()
    code = guarded(lambda: _job(out, resume, warm), out)
    interrupt.ignore()
    status = runs.ended_as(code)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts it in kB
    try:
        _note(out, status=status, ended=runs.now(), exit_code=code, peak_memory_mb=peak)
    except OSError as error:  # a full disk: the run reads as killed, and can be resumed
        print(f"warning: {out / runs.MANIFEST} keeps its last state: {error.strerror}", file=sys.stderr)
        code = code or FAILED
    early = code == INTERRUPTED and not interrupt.begun()
    return interrupt.EARLY if early else code


def _job(out: Path, resume: bool, warm: bool) -> None:
    _note(
        out,
        status="running",
        started=runs.now(),
        ended=None,
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_started=runs.process_identity(os.getpid()),
        warm=warm,
    )
    if resume:
        _note(out, resumed=runs.read_manifest(out).get("resumed", 0) + 1)
    cfg = record.load(out / runs.CONFIG)
    _set_up_logging(cfg)
    _set_up_hubs(cfg.model)
    set_up_libraries(cfg)
    run_job(cfg, out, resume=resume)


def run_job(cfg: Config, out: Path, *, resume: bool) -> None:
    """What the config asks for, in this process."""
    with optional.put_off(), imports.uncollected():
        job = import_module(f"llmf_hydra.jobs.{cfg.job.name}")
    job.run(cfg, out, resume=resume)


def interactive(cfg: Config) -> int:
    """Do a job that answers in the terminal or on a port, in the launcher's own process; returns the exit code."""
    optional.leave_out_unused(*imports.left_out(cfg))
    _set_up_logging(cfg)
    if JOBS[cfg.job.name].infers:  # else it loads nothing, and what it starts has an environment of its own
        _set_up_hubs(cfg.model)
        set_up_libraries(cfg)
    try:
        run_job(cfg, Path.cwd(), resume=False)
    except Refused as refused:
        print(masked_text(refused.report()), file=sys.stderr)
        return REFUSED
    except LlmfError as error:
        print(masked_text(f"failed: {error}"), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        print(masked_text(f"failed: {type(error).__name__}: {error}"), file=sys.stderr)
        if cfg.launch.verbosity == "DEBUG":
            print(masked_text(traceback.format_exc()), file=sys.stderr)
        else:
            print("  launch.verbosity=DEBUG shows the traceback", file=sys.stderr)
        return FAILED
    return DONE


def _note(out: Path, **values: object) -> None:
    if ranks.is_main():
        runs.update_manifest(out, **values)


def _note_reason(out: Path, reason: str) -> None:
    """The reason stands on the terminal too: a disk that has no room for it must not take its place."""
    with suppress(OSError):
        _note(out, reason=reason)


def guarded(job: Callable[[], None], out: Path) -> int:
    """Run a job and turn each way it can end into an exit code and one clear message."""
    try:
        job()
    except interrupt.Interrupted:
        if ranks.is_main():
            print(f"interrupted; go on with: llmf resume {os.path.relpath(out)}", file=sys.stderr)
        return INTERRUPTED
    except Refused as refused:
        _note(out, reason=masked_text(str(refused.problems[0])))
        if ranks.is_main():  # each process finds the same
            print(masked_text(refused.report()), file=sys.stderr)
        return REFUSED
    except Pruned as pruned:
        _note(out, reason=str(pruned))
        print(pruned)
        return PRUNED
    except LlmfError as error:
        _note_reason(out, masked_text(str(error)))
        print(masked_text(f"failed{_which()}: {error}"), file=sys.stderr)
        return FAILED
    except Exception as error:
        if (reason := disk.full(error, out)) is not None:
            what = f"{_file_of(error, out)} cannot be written: {reason}"
            _note_reason(out, what)
            print(f"failed{_which()}: {what}", file=sys.stderr)
            return FAILED
        file = out / (ERROR if ranks.is_main() else f"error-{ranks.rank()}.txt")
        file.write_text(masked_text(traceback.format_exc()), encoding="utf8")
        what = masked_text(f"{type(error).__name__}: {error}")
        _note(out, reason=what)
        print(f"failed{_which()}: {what}\n  the traceback is in {file}", file=sys.stderr)
        return FAILED
    return DONE


def _file_of(error: Exception, out: Path) -> str:
    """The file that a write failed at, as far as the error names it."""
    return str(error.filename) if isinstance(error, OSError) and error.filename else f"a file of {out}"


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
    if launch.verbosity != "DEBUG":  # deprecations inside the libraries are no news for a user
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
        for said in PEFT_SAYS:
            warnings.filterwarnings("ignore", message=said, module=r"peft\.")
        # It misses an optional kernel, in every run on a CPU.
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
        # Each layer of each pass would say that int8 multiplies in float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def _set_up_hubs(model: ModelConfig) -> None:
    """Tell libraries, and the rooms that read datasets, which hub is meant and by which token."""
    for variable, token in (("HF_TOKEN", model.hf_hub_token), ("MODELSCOPE_API_TOKEN", model.ms_hub_token)):
        if token is not None:
            os.environ[variable] = token
    for variable, wanted in (
        ("USE_MODELSCOPE_HUB", model.use_modelscope_hub),
        ("USE_OPENMIND_HUB", model.use_openmind_hub),
    ):
        os.environ[variable] = "1" if wanted else "0"


def set_up_libraries(cfg: Config) -> None:
    """What is set in Transformers and PyTorch before a job asks them for anything."""
    if cfg.model.trust_remote_code and not cfg.launch.force_check_imports:
        import_module("llmf_hydra.models.own_code").leave_imports_unchecked()
    if find_spec("torch_npu") is not None and (JOBS[cfg.job.name].trains or JOBS[cfg.job.name].infers):
        import_module("llmf_hydra.models.npu").set_compile_mode(cfg.launch.npu_jit_compile)


def load_libraries() -> bool:
    """Import what jobs need, for the workers that are forked from here; returns whether a fork is safe."""
    # Asks for GPUs without starting CUDA, which no fork survives.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    with optional.put_off(), imports.uncollected():
        import torch
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        for name in LIBRARIES:
            import_module(name)
        for room, choices in (("jobs", FORKED), ("stages", STAGES), ("methods", METHODS)):
            for choice in choices:
                import_module(f"llmf_hydra.{room}.{choice}")
        get_checkpoint_conversion_mapping("llama")  # builds the mappings of all architectures, once
    return not torch.cuda.is_initialized()


def command(words: list[str]) -> int:
    """A worker on a run folder, or with `--serve` the server that forks them."""
    optional.leave_out_unused()
    warm = words[0] == SERVE
    if warm:
        asked = fork_server.serve(int(words[1]), load_libraries)
        if asked is None:
            return DONE
        sys.argv[1:] = words = asked
    return main(Path(words[0]), resume="--resume" in words[1:], warm=warm)


if __name__ == "__main__":
    terminal.leave(command(sys.argv[1:]))
