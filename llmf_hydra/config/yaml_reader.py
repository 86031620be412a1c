"""YAML as OmegaConf reads it, parsed by libyaml: a run's whole config in a hundredth of a second."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader


def read(file: Path) -> Any:
    """What a YAML file holds, with OmegaConf's numbers and its refusal of keys that stand twice.

    Raises OSError, UnicodeDecodeError or yaml.YAMLError.
    """
    return yaml.load(file.read_text(encoding="utf8"), Loader=_loader())


@cache
def _loader() -> Any:
    slow: Any = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return slow

    class Quick(yaml.CSafeLoader, slow):
        """OmegaConf's constructors and resolvers behind the parser in C."""

    return Quick
