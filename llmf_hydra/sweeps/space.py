"""The space of a study: what each override of the command line lets vary, and how."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from random import Random
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
    Transformer,
)

from llmf_hydra.config.secrets import masked_word
from llmf_hydra.errors import Problem, Refused

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST_TRIALS = 10_000  # of one sweep: more is a slip of the keyboard
MOST_NAMED = 32  # combinations that are composed to see which files they name
NAMING_FILES = {
    "data.dataset", "data.eval_dataset", "data.dataset_dir", "model.model_name_or_path", "model.adapter_name_or_path",
    "model.model_revision", "rlhf.ref_model", "rlhf.ref_model_adapters", "rlhf.reward_model",
    "rlhf.reward_model_adapters", "rlhf.reward_model_type",
}  # fmt: skip
LOG = "log"  # the tag of an interval that is drawn from on a logarithmic scale
Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Choices:
    """A parameter with values to choose from; `texts` are the same in Hydra's grammar, as words give them."""

    key: str
    values: tuple[Scalar, ...]
    texts: tuple[str, ...]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def word(self, value: Scalar) -> str:
        """The override that sets this value."""
        alike = (i for i, own in enumerate(self.values) if own == value and type(own) is type(value))
        return f"{self.key}={self.texts[next(alike)]}"

    def described(self) -> str:
        return ", ".join(self.texts)


@dataclass(frozen=True)
class Interval:
    """A parameter that takes any number between two; both ends belong to it."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool  # integers only

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def word(self, value: Scalar) -> str:
        """The override that sets this value, exactly: repr keeps every bit of a float."""
        return f"{self.key}={value!r}"

    def described(self) -> str:
        kind = [word for word, holds in (("int", self.whole), ("log", self.log)) if holds]
        return f"{self.low:g} … {self.high:g}" + (f" ({', '.join(kind)})" if kind else "")


Dimension = Choices | Interval


@dataclass(frozen=True)
class Space:
    """All that varies, and the words that all trials share."""

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    def words(self, params: Mapping[str, Scalar]) -> list[str]:
        """The overrides of a trial with these values of its parameters."""
        return [*self.fixed, *(entry.word(params[entry.key]) for entry in self.dimensions)]

    def combinations(self) -> list[dict[str, Scalar]]:
        """Every combination, the last parameter varying first. Raises Refused for an interval or an endless grid."""
        count = 1
        for entry in self.dimensions:
            if isinstance(entry, Interval):
                remedy = (
                    "list the values, or draw from it: hydra.sweeper.sampler=tpe hydra.sweeper.n_trials=20"
                )
                raise Refused(
                    [
                        Problem(
                            entry.key,
                            entry.described(),
                            "is an interval, and a grid tries single values",
                            remedy,
                        )
                    ]
                )
            count *= len(entry.values)
            if count > MOST_TRIALS:
                raise Refused([_endless(entry.key, entry.described()[:80])])
        keys = [entry.key for entry in self.dimensions]
        axes = [entry.values for entry in self.dimensions if isinstance(entry, Choices)]
        return [dict(zip(keys, values, strict=True)) for values in product(*axes)]

    def naming_files(self) -> list[list[str]]:
        """The words of each combination of the values that decide which files a trial reads; empty where none varies.

        A choice of a group's file may name any; of more than MOST_NAMED combinations each value comes once.
        """
        named = [
            [entry.word(value) for value in entry.values]
            for entry in self.dimensions
            if isinstance(entry, Choices) and ("." not in entry.key or entry.key in NAMING_FILES)
        ]
        if prod(map(len, named)) > MOST_NAMED:
            return [[word] for words in named for word in words]
        return [list(words) for words in product(*named)] if named else []

    def described(self) -> dict[str, str]:
        """Each parameter and its values, readable at a glance."""
        return {entry.key: entry.described() for entry in self.dimensions}


def read(words: Sequence[str], loader: ConfigLoader, seed: int) -> Space:
    """The space of these overrides; `seed` orders what `shuffle` shuffles. Raises Refused for one that is endless."""
    parsed = OverridesParser.create(loader).parse_overrides(list(words))
    dimensions = {
        override.get_key_element(): _dimension(override, seed)
        for override in parsed
        if override.is_sweep_override()
    }
    last = {override.get_key_element(): override for override in parsed}
    fixed = [
        str(override.input_line)
        for override in parsed
        if not override.is_sweep_override() and last[override.get_key_element()] is override
    ]
    swept = {key: entry for key, entry in dimensions.items() if last[key].is_sweep_override()}
    return Space(tuple(swept.values()), tuple(fixed))


def _dimension(override: Override, seed: int) -> Dimension:
    key, given = override.get_key_element(), override.value()
    if isinstance(given, IntervalSweep):
        return _interval(key, override, given)
    _refuse_endless(key, override)
    values = list(_ordered(override, given, seed))
    if not values:
        text = masked_word(str(override.input_line)).partition("=")[2]
        raise Refused([Problem(key, text, "gives no value to try", "raise its end, or list the values")])
    scalars = [value if isinstance(value, Scalar) else None for value, _ in values]
    texts = tuple(text for _, text in values)
    plain = len({type(value) for value in scalars}) == 1 and scalars[0] is not None
    chosen = tuple(scalars) if plain else texts
    if len(set(chosen)) < len(chosen):
        twice = next(text for at, text in enumerate(texts) if chosen[at] in chosen[:at])
        what = "is there twice, and two trials would be one"
        raise Refused(
            [Problem(key, masked_word(f"{key}={twice}").partition("=")[2], what, "give each value once")]
        )
    return Choices(key, chosen, texts)


def _ordered(override: Override, given: Any, seed: int) -> Iterator[tuple[Any, str]]:
    """Values with their texts; shuffled by the seed where Hydra would shuffle anew each time."""
    shuffled = isinstance(given, ChoiceSweep | RangeSweep) and given.shuffle
    if shuffled:
        given.shuffle = False
    pairs = list(
        zip(
            override.sweep_iterator(transformer=Transformer.encode),
            override.sweep_string_iterator(),
            strict=True,
        )
    )
    if shuffled:
        given.shuffle = True
        Random(f"{seed} {override.get_key_element()}").shuffle(pairs)
    yield from pairs


def _interval(key: str, override: Override, given: IntervalSweep) -> Interval:
    text = masked_word(str(override.input_line)).partition("=")[2]
    if given.start is None or given.end is None or not given.start < given.end:
        raise Refused(
            [Problem(key, text, "is an empty interval", "give the lower end first: interval(0.1, 1.0)")]
        )
    log = LOG in given.tags
    if log and given.start <= 0:
        raise Refused([Problem(key, text, "a logarithmic scale starts above 0", "raise the lower end")])
    unknown = given.tags - {LOG}
    if unknown:
        raise Refused(
            [Problem(key, text, f"the tag {', '.join(sorted(unknown))} has no meaning here", "use log")]
        )
    whole = isinstance(given.start, int) and isinstance(given.end, int)
    return Interval(key, given.start, given.end, log, whole)


def _refuse_endless(key: str, override: Override) -> None:
    given = override.value()
    tags = given.tags - {LOG} if isinstance(given, Sweep) else set()
    if tags:
        text = str(override.input_line).partition("=")[2]
        raise Refused(
            [Problem(key, text, f"the tag {', '.join(sorted(tags))} has no meaning here", "leave it out")]
        )
    if sum(1 for _ in islice(override.sweep_iterator(), MOST_TRIALS + 1)) > MOST_TRIALS:
        raise Refused([_endless(key, str(override.input_line).partition("=")[2])])


def _endless(key: str, value: str) -> Problem:
    return Problem(key, value, f"makes more than {MOST_TRIALS} trials", "give fewer values")
