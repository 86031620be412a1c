"""`from_run=RUN`: what a finished run trained, as overrides: its model, adapter, template and quantization.

Stdlib and the run's own two files; whatever the user sets stands before it.
"""

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from llmf_hydra.config import record
from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.quoting import hydra_value
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem, Refused

WORD, KEY = "from_run", "job.from_run"  # as it is written for short, and in the schema
CONFIG, MANIFEST, FINAL = "config.yaml", "manifest.json", "final"
STUDY = ("study.json", "sweep.json")  # what the folder of a sweep holds
RESIDUAL = "residual"  # beside an adapter of PiSSA: what takes its start out of the base
MODEL, ADAPTERS = "model.model_name_or_path", "model.adapter_name_or_path"
GROUPS = ("model", "quantization", "data", "generation")  # in which it sets values
OF_ALL = ("data.template", "data.tool_format", "generation.default_system", "model.use_fast_tokenizer",
          "model.split_special_tokens", "model.flash_attn", "model.trust_remote_code",
          "model.compute_dtype")  # fmt: skip
OF_A_BASE = ("model.model_revision", "model.new_special_tokens", "model.resize_vocab", "model.cache_dir",
             "model.use_modelscope_hub", "model.use_openmind_hub", "quantization.quantization_method",
             "quantization.quantization_bit", "quantization.quantization_type",
             "quantization.double_quantization")  # fmt: skip
OF_SCALED_POSITIONS = ("model.rope_scaling", "model.model_max_length", "data.cutoff_len")


def long_word(word: str) -> str:
    """`from_run=RUN` as the parameter that it stands for."""
    key, equals, value = word.partition("=")
    return f"{KEY}={value}" if key == WORD and equals else word


def words(run: str, said: Collection[str]) -> list[str]:
    """The overrides that a run stands for, without those about a key or a group in `said`. Raises Refused."""
    folder = Path(run).expanduser()
    cwd = _finished(run, folder)
    cfg = record.load(folder / CONFIG)
    found: list[tuple[str, object]] = [
        ("stage", cfg.stage.name),
        ("method", cfg.method.name),
        ("model", "path"),
    ]
    found += list(_values(cfg, f"{run.rstrip('/')}/{FINAL}", folder / FINAL, cwd))
    quantized = "quantization" not in said
    return [
        f"{key}={hydra_value(value)}"
        for key, value in found
        if key not in said
        and (quantized or not key.startswith("quantization."))
        and not ("model" in said and key in (MODEL, "model.model_revision"))
    ]


def _finished(run: str, folder: Path) -> Path:
    """The folder in which the run was started. Raises Refused for what is no finished training."""
    if not folder.is_dir():
        raise _refused(run, "there is no such folder", "`llmf runs` lists the runs")
    if any((folder / name).is_file() for name in STUDY):
        raise _refused(
            run, "is the folder of a sweep", f"name one of its trials, such as {WORD}={run.rstrip('/')}/0"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf8"))
        status, job, cwd = manifest["status"], manifest.get("job", "train"), Path(manifest["cwd"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        above = folder.parent if (folder.parent / MANIFEST).is_file() else None
        remedy = f"name {above}" if above is not None else "name the folder of a run, such as outputs/sft/..."
        raise _refused(run, "is no folder of a run", remedy) from None
    if status != "done":
        what = f"its training is not done (status {status})"
        raise _refused(run, what, f"`llmf resume {run}` goes on with it")
    if job != "train" or not (folder / FINAL).is_dir():
        what = f"is a run of job={job}" if job != "train" else f"its folder {FINAL} is gone"
        raise _refused(run, what, "name a run that trained a model")
    return cwd


def _values(cfg: Config, final: str, folder: Path, cwd: Path) -> Iterator[tuple[str, object]]:
    """The parameters that make the run's model, with their values; those with their default apart."""
    if METHODS[cfg.method.name].adapters:
        yield MODEL, _from(cwd, str(cfg.model.model_name_or_path))
        residual = [f"{final}/{RESIDUAL}"] if (folder / RESIDUAL).is_dir() else []
        before = [_from(cwd, name) for name in cfg.merged_adapters]
        yield ADAPTERS, ",".join([*before, *residual, final])
        yield from _given(cfg, OF_A_BASE)
        if cfg.model.rope_scaling is not None:
            yield from _given(cfg, OF_SCALED_POSITIONS)
    else:
        yield MODEL, final if final.startswith((".", "/", "~")) else f"./{final}"
        if cfg.model.mixture_of_depths is not None:
            yield "model.mixture_of_depths", "load"
    yield from _given(cfg, OF_ALL)


def _given(cfg: Config, keys: Collection[str]) -> Iterator[tuple[str, object]]:
    for key in keys:
        value = value_at(cfg, key)
        if value != entries()[key].param.default:
            yield key, value


def _from(cwd: Path, name: str) -> str:
    """A folder that the run named from where it was started, as it is called from here."""
    there = cwd / Path(name).expanduser()
    if not there.exists() or Path(name).is_absolute() or cwd == Path.cwd():
        return name
    return os.path.normpath(there)


def _refused(run: str, what: str, remedy: str) -> Refused:
    return Refused([Problem(WORD, run, what, remedy)])
