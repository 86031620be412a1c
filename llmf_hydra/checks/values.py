"""Checks of each value on its own: its range, whether it is built yet, and whether it acts in this run."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from llmf_hydra.checks import inference
from llmf_hydra.config.choices import TRAINING_JOBS
from llmf_hydra.config.names import names
from llmf_hydra.config.param import set_in_environment
from llmf_hydra.config.schema import GROUPS, Config, Entry, entries, value_at
from llmf_hydra.errors import NO_VALUE, Problem, shown

# What a saved adapter says itself.
OF_A_NEW_ADAPTER = tuple(
    f"method.{name}"
    for name in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target", "use_rslora",
                 "use_dora", "pissa_init", "pissa_iter", "pissa_convert", "use_llama_pro", "oft_rank",
                 "oft_block_size", "oft_target", "module_dropout")
)  # fmt: skip
# Names of models that are looked for on a hub where no folder has that name.
MODELS = ("model.model_name_or_path", "rlhf.ref_model", "rlhf.reward_model")
GPU_DRIVERS = tuple(map(Path, ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")))


def bad_values(cfg: Config) -> Iterator[Problem]:
    """Values out of their range or choices."""
    for key, entry in entries().items():
        problem = entry.param.problem(_named(entry), value_at(cfg, key))
        if problem is not None:
            yield problem


def not_built(cfg: Config) -> Iterator[Problem]:
    """Values whose behaviour isn't built yet."""
    for key, entry in entries().items():
        if entry.param.jobs and cfg.job.name not in entry.param.jobs and set_in_environment(entry.param):
            continue  # an API_PORT in the environment is no word about this training
        value = value_at(cfg, key)
        if value in entry.param.choices or not entry.param.choices:  # a bad choice is told as such
            problem = entry.not_built(value)
            if problem is not None:
                yield problem


def without_effect(cfg: Config, shipped: Mapping[str, object]) -> list[Problem]:
    """Values that the user set and that this run would not read.

    `shipped` holds, by full key, what the chosen files of the package set: what stands there was not the user's
    word, so it may lie idle without being reported.
    """
    return [
        *_idle(cfg, shipped),
        *_said_by_the_adapter(cfg),
        *_nothing_to_act_on(cfg, shipped),
        *_nothing_to_clip(cfg, shipped),
    ]


def idle_choices(cfg: Config, words: Iterable[str]) -> Iterator[Problem]:
    """Choices among the words of a command line, such as optimizer=muon, of whose group this job reads nothing."""
    job = cfg.job.name
    read = {entry.group for entry in entries().values() if inference.acts(entry, job)}
    for word in words:
        group, equals, choice = word.lstrip("+").partition("=")
        if equals and group in GROUPS and group not in read:
            yield Problem(f"{group}={choice}", NO_VALUE, f"has no effect with job={job}", "leave it out")


def _idle(cfg: Config, shipped: Mapping[str, object]) -> Iterator[Problem]:
    for key, entry in entries().items():
        value = value_at(cfg, key)
        if value in (entry.param.default, shipped.get(key, entry.param.default)) or set_in_environment(
            entry.param
        ):
            continue
        if not inference.acts(entry, cfg.job.name):
            where = f": it acts only with job={' or '.join(entry.param.jobs)}" if entry.param.jobs else ""
            yield Problem(key, value, f"has no effect with job={cfg.job.name}{where}", "leave it out")
            continue
        conditions = entry.param.conditions(trains=cfg.job.name in TRAINING_JOBS)
        for other, allowed in conditions.items():
            actual = value_at(cfg, other)
            if actual not in allowed:
                where = " or ".join(_shown(other, choice) for choice in allowed)
                yield Problem(
                    key,
                    value,
                    f"has no effect with {_shown(other, actual)}: it acts only with {where}",
                    "leave it out",
                )
                break


def _said_by_the_adapter(cfg: Config) -> Iterator[Problem]:
    """What the user said of a new adapter, in a run that trains a saved one on."""
    adapter = cfg.trained_adapter
    if adapter is None:
        return
    for key in OF_A_NEW_ADAPTER:
        value = value_at(cfg, key)
        if value != entries()[key].param.default:
            what = f"has no effect: the adapter {adapter} is trained on as it is"
            yield Problem(key, value, what, "leave it out, or set method.create_new_adapter=true")


def _nothing_to_act_on(cfg: Config, shipped: Mapping[str, object]) -> Iterator[Problem]:
    """Values for which the run has too little: one dataset to mix, no model from a hub, no GPU."""
    mix, dataset = cfg.data.mix_strategy, cfg.data.dataset
    default = entries()["data.mix_strategy"].param.default
    if mix not in (default, shipped.get("data.mix_strategy")) and dataset and len(names(dataset)) == 1:
        what = f"has no effect: data.dataset={dataset} is the only dataset"
        yield Problem("data.mix_strategy", mix, what, "leave it out, or name another dataset")
    models = {key: value_at(cfg, key) for key in MODELS}
    named = [*(name for name in models.values() if name), *names(cfg.model.adapter_name_or_path)]
    if cfg.model.cache_dir is not None and all(map(_is_here, named)):
        what = f"has no effect: {MODELS[0]}={shown(models[MODELS[0]])} comes from no hub"
        yield Problem("model.cache_dir", cfg.model.cache_dir, what, "leave it out")
    devices = cfg.launch.cuda_visible_devices
    scheduled = cfg.launch.use_ray or cfg.launch.use_slurm
    told = set_in_environment(entries()["launch.cuda_visible_devices"].param)
    if devices and devices != "-1" and not scheduled and not told and not any(map(Path.exists, GPU_DRIVERS)):
        what = "has no effect: this machine has no GPU"
        yield Problem("launch.cuda_visible_devices", devices, what, "leave it out")


def _nothing_to_clip(cfg: Config, shipped: Mapping[str, object]) -> Iterator[Problem]:
    """Bounds of a ratio that is 1: stage=grpo trains on each answer once, within one optimizer step."""
    rlhf, steps = cfg.rlhf, cfg.training.gradient_accumulation_steps
    reused = steps % ((rlhf.steps_per_generation or steps) * rlhf.num_iterations) != 0
    if cfg.stage.name != "grpo" or reused or rlhf.loss_type == "cispo":  # which needs its bound in any case
        return
    for key in ("rlhf.epsilon", "rlhf.epsilon_high", "rlhf.delta"):
        value, default = value_at(cfg, key), entries()[key].param.default
        if value not in (default, shipped.get(key, default)):
            what = "has no effect: each answer is trained on once, within one step, where the ratio is 1"
            remedy = "set rlhf.num_iterations or rlhf.steps_per_generation higher, or leave it out"
            yield Problem(key, value, what, remedy)


def _is_here(model: str) -> bool:
    return model.startswith(("builtin:", ".", "/", "~")) or Path(model).exists()


def _named(entry: Entry) -> str:
    """The key, and the environment variable where the value came from one."""
    return f"{entry.key} (from {entry.param.env})" if set_in_environment(entry.param) else entry.key


def _shown(key: str, value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key.removesuffix('.name')}={text}"
