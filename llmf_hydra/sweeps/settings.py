"""`hydra.sweeper.*`: how a study proposes its trials, what it compares them by, when it stops."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean

SAMPLERS = ("grid", "random", "tpe", "cmaes", "qmc")
PRUNERS = ("none", "median", "percentile", "patience", "hyperband", "asha")
DIRECTIONS = ("minimize", "maximize")
GROUP = "hydra.sweeper"


@dataclass
class SweeperSettings:
    """The settings of a study; each is a key below `hydra.sweeper`."""

    _target_: str = "hydra_plugins.llmf_hydra_sweeper.StudySweeper"
    params: dict[str, Any] | None = None  # key: values, in Hydra's grammar; the command line comes after them
    # What is tried: grid tries every combination, the others draw n_trials of them.
    sampler: str = "grid"
    n_trials: int | None = None  # of a grid: the first so many; null tries all
    seed: int = 42  # of the sampler: the same seed proposes the same trials
    # What trials are compared by: {metric: direction}; empty takes tracking.objective and tracking.direction.
    objectives: Any = None  # OmegaConf would not let a typed mapping take new keys
    constraints: list[str] = field(default_factory=list)  # "peak_memory_mb <= 2000"; others aren't the best
    # When it stops
    timeout: float | None = None  # seconds after which no further trial starts
    max_failures: int | None = None  # more failed trials than this end the study; null goes on to the end
    retries: int = 0  # times that a failed trial is started again, from its last checkpoint
    n_jobs: int = 1  # trials at once, each with its share of the cores, or a GPU
    # Pruning: a hopeless trial ends at an evaluation (or a logging step, where there is none).
    pruner: str = "none"
    pruner_startup_trials: int = (
        4  # that are never pruned: with them the others are compared (median, percentile)
    )
    pruner_warmup_steps: int = (
        0  # training steps before which no trial is pruned (median, percentile, patience)
    )
    pruner_percentile: float = 25.0  # the share of trials, the best, that goes on (percentile)
    pruner_patience: int = 3  # reports without an improvement that end a trial (patience)
    pruner_min_delta: float = 0.0  # what counts as an improvement (patience)
    pruner_min_steps: int = 1  # training steps of the first rung (hyperband, asha)
    pruner_reduction_factor: int = 3  # one of so many goes on to the next rung (hyperband, asha)
    # Where the study is kept: null is study.journal in the sweep's folder. Several launchers share a URL.
    storage: str | None = None  # journal:/path/file, sqlite:////path/file.db, postgresql://…, mysql://…
    study_name: str | None = None  # within the storage; null is the name of the sweep's folder
    allow_changes: bool = (
        False  # resume although config, data or code are no longer those of the first trials
    )


def read(config: DictConfig) -> SweeperSettings:
    """The settings of a composed config; raises Refused with all that is wrong in them."""
    given: dict[str, Any] = dict(OmegaConf.to_container(config.hydra.sweeper, resolve=True))  # type: ignore[arg-type]
    known = {entry.name for entry in fields(SweeperSettings)}
    unknown = [
        Problem(f"{GROUP}.{key}", value, "no such setting", did_you_mean(key, known))
        for key, value in given.items()
        if key not in known
    ]
    if unknown:
        raise Refused(unknown)
    settings = SweeperSettings(**{**given, "objectives": given["objectives"] or {}})
    found = list(_problems(settings))
    if found:
        raise Refused(found)
    return settings


def _problems(settings: SweeperSettings) -> Iterator[Problem]:
    for name, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        value = getattr(settings, name)
        if value not in allowed:
            yield Problem.bad_choice(f"{GROUP}.{name}", value, allowed)
    if not isinstance(settings.objectives, dict):
        what, remedy = "is no mapping", "write hydra.sweeper.objectives={eval_loss: minimize}"
        yield Problem(f"{GROUP}.objectives", settings.objectives, what, remedy)
        return
    for name, direction in settings.objectives.items():
        if direction not in DIRECTIONS:
            yield Problem.bad_choice(f"{GROUP}.objectives.{name}", direction, DIRECTIONS)
    least = {
        "n_trials": 1,
        "n_jobs": 1,
        "retries": 0,
        "max_failures": 0,
        "seed": 0,
        "pruner_startup_trials": 0,
        "pruner_warmup_steps": 0,
        "pruner_patience": 1,
        "pruner_min_steps": 1,
        "pruner_reduction_factor": 2,
    }
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None and value < smallest:
            yield Problem(f"{GROUP}.{name}", value, f"must be at least {smallest}")
    if settings.timeout is not None and not settings.timeout > 0:
        yield Problem(f"{GROUP}.timeout", settings.timeout, "must be more than 0 seconds")
    if not 0 < settings.pruner_percentile < 100:
        yield Problem(f"{GROUP}.pruner_percentile", settings.pruner_percentile, "must lie between 0 and 100")
    if settings.sampler != "grid" and settings.n_trials is None:
        what = f"is needed: {settings.sampler} can draw trials for ever"
        yield Problem(f"{GROUP}.n_trials", NO_VALUE, what, f"{GROUP}.n_trials=20")
    if settings.pruner != "none" and len(settings.objectives) > 1:
        what = "compares trials by one metric, and the study has several objectives"
        yield Problem(f"{GROUP}.pruner", settings.pruner, what, f"{GROUP}.pruner=none")
