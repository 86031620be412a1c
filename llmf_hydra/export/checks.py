"""What an export must be given, and what it must not overwrite. Torch-free."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem
from llmf_hydra.models.adapter_files import names_a_folder, read
from llmf_hydra.models.quantization.saved import quantized_by

JOBS = ("export",)
DIR, OVERWRITE, BITS, DATASET, HUB = (
    "export.export_dir",
    "export.overwrite",
    "export.export_quantization_bit",
    "export.export_quantization_dataset",
    "export.export_hub_model_id",
)
RECORD = "export.json"  # in every export
GPTQ_BITS = (2, 3, 4, 8)
ON_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@rule(DIR, jobs=JOBS)
def the_export_has_a_place(cfg: Config) -> Iterator[Problem]:
    """job=export writes into export.export_dir."""
    if not cfg.export.export_dir:
        yield Problem(DIR, cfg.export.export_dir, "no folder is named", "set it to a new folder")


@rule(DIR, OVERWRITE, "model.model_name_or_path", "model.adapter_name_or_path", jobs=JOBS, phase=DISK)
def nothing_is_overwritten(cfg: Config) -> Iterator[Problem]:
    """export.export_dir is a new or an empty folder; export.overwrite=true replaces an earlier export, and nothing
    else."""
    if not cfg.export.export_dir:
        return
    out = Path(cfg.export.export_dir).expanduser().absolute()
    named = [str(cfg.model.model_name_or_path), *cfg.model.adapters]
    read_from = [Path(name).expanduser().resolve() for name in named if names_a_folder(name)]
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if any(out.resolve() in (folder, *folder.parents) for folder in read_from):
        what = "holds the model or an adapter that is exported"
        yield Problem(DIR, cfg.export.export_dir, what, "name another folder")
    elif any(out.resolve().is_relative_to(folder) for folder in read_from):
        what = "lies in the folder of the model or of an adapter that is exported"
        yield Problem(DIR, cfg.export.export_dir, what, "name a folder beside it")
    elif not there.is_dir():
        yield Problem(DIR, cfg.export.export_dir, f"{there} is a file", "name another folder")
    elif not os.access(there if there != out else out.parent, os.W_OK | os.X_OK):
        yield Problem(DIR, cfg.export.export_dir, f"{there} may not be written to", "name another folder")
    elif there == out and any(out.iterdir()):
        if not cfg.export.overwrite:
            remedy = "name a new folder" + (f", or set {OVERWRITE}=true" if (out / RECORD).is_file() else "")
            yield Problem(DIR, cfg.export.export_dir, "holds files already", remedy)
        elif not (out / RECORD).is_file():
            what = f"holds files that no export has written (there is no {RECORD})"
            yield Problem(DIR, cfg.export.export_dir, what, "name a new folder")
    elif cfg.export.overwrite:
        what = f"has no effect: {DIR}={cfg.export.export_dir} holds no files"
        yield Problem(OVERWRITE, True, what, "leave it out")


@rule("quantization.quantization_bit", jobs=JOBS)
def adapters_are_merged_into_whole_weights(cfg: Config) -> Iterator[Problem]:
    """An adapter is merged into full-precision weights, never into quantized ones, where it would be rounded away."""
    bits = cfg.quantization.quantization_bit
    if bits is not None:
        what = (
            "job=export writes full-precision weights: merged into quantized ones an adapter would be rounded"
        )
        remedy = f"set quantization=none; {BITS} quantizes the merged model"
        yield Problem("quantization.quantization_bit", bits, what, remedy)


@rule("model.model_name_or_path", jobs=JOBS, phase=DISK)
def the_base_is_whole(cfg: Config) -> Iterator[Problem]:
    """The exported model was not saved quantized."""
    name = str(cfg.model.model_name_or_path)
    config = read(Path(name).expanduser() / "config.json")
    method = quantized_by(config) if config is not None else None
    if method is not None:
        what = f"is quantized with {method}, and job=export writes full-precision weights"
        yield Problem("model.model_name_or_path", name, what, "name the model that it was made from")


@rule("model.mixture_of_depths", jobs=JOBS)
def plain_transformers_loads_it(cfg: Config) -> Iterator[Problem]:
    """An export loads in plain Transformers, which knows no routers of model.mixture_of_depths."""
    if cfg.model.mixture_of_depths is not None:
        what = "has routers, which plain Transformers would leave out in silence"
        remedy = "use the run's own folder final/ with model.mixture_of_depths=load"
        yield Problem("model.mixture_of_depths", cfg.model.mixture_of_depths, what, remedy)


@rule("model.device_map", jobs=JOBS)
def one_word_places_the_export(cfg: Config) -> Iterator[Problem]:
    """export.export_device places the model, and model.device_map doesn't."""
    if cfg.model.device_map is not None:
        what = "has no effect with job=export: export.export_device places the model"
        yield Problem("model.device_map", cfg.model.device_map, what, "set export.export_device=auto")


@rule(BITS, DATASET, "export.export_legacy_format", "stage.name", jobs=JOBS)
def gptq_has_what_it_needs(cfg: Config) -> Iterator[Problem]:
    """export.export_quantization_bit is 2, 3, 4 or 8, needs a calibration dataset and a model of text, and writes
    safetensors."""
    export = cfg.export
    if export.export_quantization_bit is None:
        return
    if export.export_quantization_bit not in GPTQ_BITS:
        known = ", ".join(map(str, GPTQ_BITS))
        yield Problem(BITS, export.export_quantization_bit, f"is not one of {known}", "choose 4 or 8")
    if export.export_quantization_dataset is None:
        yield Problem(
            DATASET, None, f"{BITS} needs calibration data", "set it to a dataset of text or dialogues"
        )
    if export.export_legacy_format:
        what = f"contradicts {BITS}: quantized weights are written as safetensors"
        yield Problem("export.export_legacy_format", True, what, "leave one of them out")
    if cfg.stage.scores:
        what = f"quantizes models of text, and stage={cfg.stage.name} is of a model that gives scores"
        yield Problem(BITS, export.export_quantization_bit, what, "leave it out")


@rule(BITS, phase=PACKAGES, jobs=JOBS)
def gptqmodel_is_installed(cfg: Config) -> Iterator[Problem]:
    """export.export_quantization_bit needs gptqmodel."""
    bits = cfg.export.export_quantization_bit
    if bits is not None:
        missing = optional.missing("gptqmodel", extra="gptq", key=f"{BITS}={bits}")
        yield from [missing] if missing is not None else []


@rule(HUB, "model.use_modelscope_hub", "model.use_openmind_hub", jobs=JOBS)
def the_hub_takes_the_name(cfg: Config) -> Iterator[Problem]:
    """export.export_hub_model_id is owner/name on the Hugging Face hub."""
    name = cfg.export.export_hub_model_id
    if name is None:
        return
    if not ON_HUB.fullmatch(name) or "--" in name or ".." in name:
        yield Problem(HUB, name, "is no name that the hub takes", "write it as owner/name")
    for other in ("use_modelscope_hub", "use_openmind_hub"):
        if getattr(cfg.model, other):
            what = f"is pushed to the Hugging Face hub, and model.{other}=true names another one"
            yield Problem(HUB, name, what, f"set model.{other}=false")
