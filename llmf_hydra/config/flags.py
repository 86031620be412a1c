"""Hydra's flags, read by its own parser, and where they have configs looked for."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery

from llmf_hydra import paths
from llmf_hydra.config import conf_files, overrides
from llmf_hydra.config.schema import GROUPS, entries
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean

PRIMARY = "config"  # the config that is composed where --config-name names no other


def search_path_of(flags: Namespace) -> ConfigSearchPath:
    """Where configs are looked for: `--config-path` replaces the shipped folder, which then comes after it."""
    shipped, own = str(paths.conf_dir()), flags.config_path
    conf_files.check_user_conf()
    if own is not None and not own.startswith("pkg://"):
        folder = Path(own).expanduser().absolute()
        if not folder.is_dir():
            raise Refused([Problem("--config-path", own, "there is no such folder")])
        name = f"{(flags.config_name or PRIMARY).removesuffix('.yaml')}.yaml"
        if not (folder / name).is_file() and not conf_files.holds_groups(folder):
            what = f"holds neither {name} nor a folder of a group, such as {folder / 'method'}"
            raise Refused([Problem("--config-path", own, what, "name a conf folder, or leave it out")])
        own = str(folder)
    search_path = create_config_search_path(own or shipped)
    if own is not None:
        search_path.append("llmf-shipped", shipped, anchor=SearchPathQuery(provider="main"))
    if flags.config_dir is not None:
        folder = Path(flags.config_dir).expanduser().absolute()
        if not folder.is_dir():
            raise Refused([Problem("--config-dir", flags.config_dir, "there is no such folder")])
        search_path.prepend("command-line", f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    return search_path


def read(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """Hydra's flags, read by its own parser, whose complaints become refusals."""

    def refuse(message: str) -> NoReturn:
        raise Refused(
            [Problem("command line", NO_VALUE, message, "`llmf-hydra --hydra-help` lists the flags")]
        )

    for word in words:
        name = word.partition("=")[0]
        if name.startswith("-") and name not in parser._option_string_actions:
            raise Refused([_unknown_flag(name, parser)])
    parser.error = refuse
    return parser.parse_intermixed_args(words)


def _unknown_flag(name: str, parser: ArgumentParser) -> Problem:
    """`--stage dpo` is `stage=dpo` here; any other flag gets the nearest of Hydra's."""
    bare = name.lstrip("-").replace("-", "_")
    homes = [bare] if bare in GROUPS or bare in entries() else overrides.homes_of(bare)
    remedy = (
        f"write {' or '.join(home if '=' in home else f'{home}=VALUE' for home in homes)}" if homes else ""
    )
    near = did_you_mean(name, parser._option_string_actions)
    return Problem(
        name, NO_VALUE, "is no flag", remedy or near or "`llmf-hydra --hydra-help` lists the flags"
    )
