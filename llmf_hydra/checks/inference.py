"""Rules of the jobs that use a model as it is, and which parameters those jobs read."""

from collections.abc import Iterator

from llmf_hydra.checks.register import PACKAGES, rule
from llmf_hydra.config.choices import GENERATING_JOBS, INFERENCE_JOBS, INTERACTIVE_JOBS, JOBS
from llmf_hydra.config.schema import Config, Entry, entries, value_at
from llmf_hydra.errors import NO_VALUE, Problem
from llmf_hydra.optional import missing

IDLE_GROUPS = ("training", "optimizer", "rlhf", "tracking", "method")
IDLE = {  # of the other groups: what acts on a training alone
    f"model.{name}"
    for name in ("shift_attn", "use_unsloth", "use_unsloth_gc", "moe_aux_loss_coef", "train_from_scratch",
                 "disable_gradient_checkpointing", "use_reentrant_gc", "upcast_lmhead_output", "print_param_status",
                 "block_diag_attn")
}  # fmt: skip
READ = {"method.name", "training.seed"}  # of the idle groups, by every job that infers
DATA = {  # of the group data, by the jobs without a dataset
    f"data.{name}" for name in ("template", "tool_format", "cutoff_len")
}
OF_THE_PAGE = ("job", "launch", "serve")  # groups that job=webui reads: its runs have configs of their own
PREDICTED = {f"data.{name}" for name in ("dataset", "eval_dataset", "dataset_dir", "media_dir", "max_samples",
                                         "overwrite_cache", "preprocessing_batch_size", "preprocessing_num_workers",
                                         "skip_bad_rows")}  # fmt: skip
READ_BY = {  # more, by one job
    "predict": {"training.per_device_eval_batch_size", *PREDICTED},
    "export": {"data.dataset_dir"},  # where it looks for the calibration dataset
}
SPOKEN = "generation.default_system"  # of the group generation, by the jobs that don't generate
UNSEEDED = ("evaluate", "export")  # an evaluation has a seed of its own
UNCUT = ("evaluate", "export", "chat", "api")  # no dataset's rows
SINGLE = ("predict", "evaluate", "export")  # one process does them


def acts(entry: Entry, job: str) -> bool:
    """Whether a job reads a parameter at all."""
    if entry.param.jobs:
        return job in entry.param.jobs
    if job == "webui":
        return entry.group in OF_THE_PAGE
    if entry.key == "training.seed" and job in UNSEEDED:
        return False
    if not JOBS[job].infers or entry.key in READ | READ_BY.get(job, set()):
        return True
    if entry.group == "data":
        return entry.key in DATA
    if entry.group == "generation" and job not in GENERATING_JOBS:
        return entry.key == SPOKEN
    return entry.group not in IDLE_GROUPS and entry.key not in IDLE


@rule("data.cutoff_len", "model.rope_scaling", jobs=UNCUT)
def prompts_are_not_cut(cfg: Config) -> Iterator[Problem]:
    """data.cutoff_len cuts the rows of a dataset; beside it, it is the length that model.rope_scaling stretches to."""
    given = cfg.data.cutoff_len
    if given != entries()["data.cutoff_len"].param.default and cfg.model.rope_scaling is None:
        what = f"has no effect with job={cfg.job.name}: it cuts the rows of a dataset"
        yield Problem("data.cutoff_len", given, what, "leave it out")


@rule("job.from_run", "job.name", jobs=tuple(name for name in JOBS if name not in INFERENCE_JOBS))
def a_run_is_used_by_inference(cfg: Config) -> Iterator[Problem]:
    """from_run names the run whose model is used; a training starts from model.adapter_name_or_path."""
    if cfg.job.from_run is not None:
        what = f"has no effect with job={cfg.job.name}"
        remedy = f"choose job={', '.join(INFERENCE_JOBS)}"
        yield Problem("from_run", cfg.job.from_run, what, remedy)


@rule("launch.use_ray", "launch.use_slurm", "launch.nproc_per_node", jobs=INTERACTIVE_JOBS)
def what_answers_runs_here(cfg: Config) -> Iterator[Problem]:
    """job=chat, api and webui answer from this process: no scheduler starts them, and they are one process."""
    for key, given in (("use_ray", cfg.launch.use_ray), ("use_slurm", cfg.launch.use_slurm)):
        if given:
            yield Problem(
                f"launch.{key}", True, f"job={cfg.job.name} runs where it is started", "leave it out"
            )
    if cfg.launch.nproc_per_node > 1:
        what = f"job={cfg.job.name} is one process"
        yield Problem("launch.nproc_per_node", cfg.launch.nproc_per_node, what, "leave it out")


@rule("launch.nproc_per_node", jobs=SINGLE)
def one_process_does_it(cfg: Config) -> Iterator[Problem]:
    """job=predict, evaluate and export are one process."""
    if cfg.launch.nproc_per_node > 1:
        what = f"job={cfg.job.name} is one process"
        yield Problem("launch.nproc_per_node", cfg.launch.nproc_per_node, what, "leave it out")


@rule("data.dataset", "data.eval_dataset", jobs=("predict",))
def one_list_of_datasets_is_answered(cfg: Config) -> Iterator[Problem]:
    """job=predict answers data.dataset, or data.eval_dataset, as LLaMA-Factory calls it: one of the two."""
    data = cfg.data
    if not data.dataset and not data.eval_dataset:
        remedy = "set data.dataset to a row of dataset_info.json, a file or a hub name"
        yield Problem("data.dataset", None, "no dataset is named", remedy)
    elif data.dataset and data.eval_dataset:
        what = f"job=predict answers one list of datasets, and data.dataset={data.dataset} is named too"
        yield Problem("data.eval_dataset", data.eval_dataset, what, "name all of them in data.dataset")


@rule("model.infer_backend", jobs=GENERATING_JOBS, phase=PACKAGES)
def vllm_is_there(cfg: Config) -> Iterator[Problem]:
    """model.infer_backend=vllm needs the package vllm, which needs CUDA."""
    if cfg.model.infer_backend == "vllm":
        problem = missing("vllm", extra="vllm", key="model.infer_backend=vllm")
        yield from [problem] if problem is not None else []


@rule("job.name", jobs=("api",), phase=PACKAGES)
def the_server_is_installed(cfg: Config) -> Iterator[Problem]:
    """job=api needs the packages fastapi, uvicorn and prometheus_client."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        problem = missing(package, extra="api", key="job=api")
        if problem is not None:
            yield problem
            return


@rule("serve.api_key", jobs=("api",))
def a_key_is_not_empty(cfg: Config) -> Iterator[Problem]:
    """serve.api_key, where it is given, holds visible characters of ASCII, as a header can."""
    key = cfg.serve.api_key
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        yield Problem(
            "serve.api_key",
            NO_VALUE,
            "is empty, or holds what no header can",
            "give another one, or unset API_KEY",
        )


@rule("serve.root_path", jobs=("api",))
def a_root_path_begins_with_a_slash(cfg: Config) -> Iterator[Problem]:
    """serve.root_path is empty, or begins with / and doesn't end with one."""
    path = cfg.serve.root_path
    if path and (not path.startswith("/") or path.endswith("/")):
        yield Problem("serve.root_path", path, "must begin with / and not end with it", "such as /llm")


@rule("generation.length_penalty", "generation.num_beams", "generation.eval_num_beams", jobs=GENERATING_JOBS)
def lengths_are_weighed_among_beams(cfg: Config) -> Iterator[Problem]:
    """generation.length_penalty compares beams: it acts with generation.num_beams above 1."""
    given, predicts = cfg.generation.length_penalty, cfg.job.name == "predict"
    beams = (cfg.generation.eval_num_beams if predicts else None) or cfg.generation.num_beams
    if given != 1 and beams == 1:
        what = "has no effect with generation.num_beams=1: it compares beams"
        yield Problem(
            "generation.length_penalty",
            f"{given:g}",
            what,
            "set generation.num_beams above 1, or leave it out",
        )


@rule("stage.name", "job.name", jobs=("chat",))
def only_text_is_talked_with(cfg: Config) -> Iterator[Problem]:
    """A reward model (stage=rm) gives scores: job=api answers with them at /v1/score, job=predict writes them down."""
    if cfg.stage.scores:
        what = f"gives scores and no text, which job={cfg.job.name} needs"
        yield Problem(
            f"stage={cfg.stage.name}", NO_VALUE, what, "choose job=api, which has /v1/score, or job=predict"
        )


@rule("training.seed", jobs=("chat", "api"))
def each_answer_has_its_seed(cfg: Config) -> Iterator[Problem]:
    """training.seed is for runs: a request to job=api has a seed of its own, and a chat has none."""
    if cfg.training.seed != entries()["training.seed"].param.default:
        what = f"has no effect with job={cfg.job.name}"
        yield Problem(
            "training.seed", cfg.training.seed, what, "give the seed in the request, or leave it out"
        )


@rule("generation.eval_num_beams", jobs=("chat", "api"))
def beams_of_an_evaluation(cfg: Config) -> Iterator[Problem]:
    """generation.eval_num_beams is for evaluation and job=predict; chats and the API take generation.num_beams."""
    given = cfg.generation.eval_num_beams
    if given is not None:
        what = f"has no effect with job={cfg.job.name}"
        yield Problem("generation.eval_num_beams", given, what, f"set generation.num_beams={given}")


@rule("model.infer_backend", "quantization.quantization_bit", "generation.num_beams", "model.use_cache",
      "model.rope_scaling", "model.adapter_name_or_path", "stage.name", jobs=GENERATING_JOBS)  # fmt: skip
def vllm_does_it(cfg: Config) -> Iterator[Problem]:
    """model.infer_backend=vllm loads one model, perhaps with one LoRA adapter, in full precision, and samples."""
    if cfg.model.infer_backend != "vllm":
        return
    asked = {
        "quantization.quantization_bit": cfg.quantization.quantization_bit is not None,
        "generation.num_beams": cfg.generation.num_beams > 1,
        "model.use_cache": not cfg.model.use_cache,
        "model.rope_scaling": cfg.model.rope_scaling is not None,
        "model.adapter_name_or_path": len(cfg.model.adapters) > 1,
    }
    for key, contradicts in asked.items():
        if contradicts:
            what = "contradicts model.infer_backend=vllm, which doesn't do that"
            yield Problem(key, value_at(cfg, key), what, "leave one of them out")
    if cfg.stage.scores:
        yield Problem("model.infer_backend", "vllm", "serves no reward models (stage=rm)", "leave it out")
