"""Samplers and pruners: which trial comes next, and which one is hopeless."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.optional import require
from llmf_hydra.sweeps.settings import SweeperSettings
from llmf_hydra.sweeps.space import Choices, Dimension, Scalar, Space

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

CONSTRAINTS = "constraints"  # user attribute of a trial: how far each is broken; none above 0 is feasible


def known_beforehand(settings: SweeperSettings, space: Space) -> list[dict[str, Scalar]]:
    """The parameters of all trials; empty dicts where they follow from the trials before (tpe, cmaes)."""
    if settings.sampler == "grid":
        return space.combinations()[: settings.n_trials]
    if not space.dimensions:
        what = f"nothing varies, and {settings.sampler} would draw the same trial again and again"
        raise Refused(
            [Problem("hydra.sweeper.sampler", settings.sampler, what, "give a parameter several values")]
        )
    trials = settings.n_trials or 0
    if settings.sampler in ("random", "qmc"):
        points = (
            _random(settings.seed, trials, space)
            if settings.sampler == "random"
            else _sobol(settings.seed, trials, space)
        )
        return [
            {entry.key: _at(entry, share) for entry, share in zip(space.dimensions, point, strict=True)}
            for point in points
        ]
    return [{} for _ in range(trials)]


def sampler(settings: SweeperSettings, place: int) -> "BaseSampler":
    """The sampler of one trial. Seeded by its place, it proposes the same in a study that was killed and resumed."""
    from optuna import samplers

    seed = settings.seed + place
    if settings.sampler == "tpe":
        return samplers.TPESampler(
            seed=seed,
            multivariate=True,
            n_startup_trials=min(10, max(3, (settings.n_trials or 0) // 4)),
            constraints_func=_broken if settings.constraints else None,
        )
    if settings.sampler == "cmaes":
        require("cmaes", extra="cmaes", key="hydra.sweeper.sampler=cmaes")
        independent = samplers.RandomSampler(seed=seed)
        return samplers.CmaEsSampler(seed=seed, independent_sampler=independent, n_startup_trials=1)
    return samplers.RandomSampler(seed=seed)  # all parameters are fixed already


def pruner(settings: SweeperSettings) -> "BasePruner":
    """The pruner of a study."""
    from optuna import pruners

    startup, warmup = settings.pruner_startup_trials, settings.pruner_warmup_steps
    if settings.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
    if settings.pruner == "percentile":
        return pruners.PercentilePruner(
            settings.pruner_percentile, n_startup_trials=startup, n_warmup_steps=warmup
        )
    if settings.pruner == "patience":
        return pruners.PatientPruner(None, settings.pruner_patience, settings.pruner_min_delta)
    if settings.pruner == "hyperband":
        return pruners.HyperbandPruner(
            min_resource=settings.pruner_min_steps, reduction_factor=settings.pruner_reduction_factor
        )
    if settings.pruner == "asha":
        return pruners.SuccessiveHalvingPruner(
            min_resource=settings.pruner_min_steps, reduction_factor=settings.pruner_reduction_factor
        )
    return pruners.NopPruner()


def _broken(trial: "FrozenTrial") -> Sequence[float]:
    return trial.user_attrs.get(CONSTRAINTS, (1.0,))


def _random(seed: int, trials: int, space: Space) -> list[list[float]]:
    """Uniform points of the unit cube, a trial's own whatever the number of trials."""
    from numpy.random import default_rng

    return [list(default_rng([seed, place]).random(len(space.dimensions))) for place in range(trials)]


def _sobol(seed: int, trials: int, space: Space) -> list[list[float]]:
    """A scrambled Sobol sequence in the unit cube."""
    from scipy.stats.qmc import Sobol

    powers = max(0, (trials - 1).bit_length())
    points = Sobol(len(space.dimensions), scramble=True, rng=seed).random_base2(powers)
    return [list(map(float, point)) for point in points[:trials]]


def _at(entry: Dimension, share: float) -> Scalar:
    """The value of a parameter at this share, between 0 and 1, of its range."""
    if isinstance(entry, Choices):
        return entry.values[min(int(share * len(entry.values)), len(entry.values) - 1)]
    if entry.whole and not entry.log:
        return min(int(entry.low + share * (entry.high - entry.low + 1)), int(entry.high))
    value = (
        entry.low * (entry.high / entry.low) ** share
        if entry.log
        else entry.low + share * (entry.high - entry.low)
    )
    return round(value) if entry.whole else float(value)
