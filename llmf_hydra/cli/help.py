"""The `--help` of the command line: all groups a line each, or one group a parameter each.

Written from the declarations and from the file names in the conf folders, without Hydra, so that it answers
at once.
"""

import functools
import os
import sys
import textwrap

from llmf_hydra.cli import wording
from llmf_hydra.cli.commands import COMMANDS
from llmf_hydra.config.conf_files import choices
from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean

USAGE = """\
  python -m llmf_hydra stage=dpo method=lora rlhf.pref_beta=0.2   train; a word picks a choice or sets a value
  python -m llmf_hydra -m method.lora_rank=4,8 rlhf.pref_beta=0.05,0.1   sweep: a run for each combination
  python -m llmf_hydra experiment=NAME            a whole recipe
  python -m llmf_hydra job=check ...              what would be refused, and what the run would cost
  python -m llmf_hydra --cfg job ...              the composed config"""

WHERE_NEXT = """\
  --help GROUP        the parameters of a group
  LLMF_CONF=DIR       a conf folder of your own, whose files go before the shipped ones
  docs/parameters.md  every parameter on one page; docs/schema.json completes them in an editor"""


def overview() -> str:
    """The whole program on one screen: usage, the groups with their choices, the commands."""
    parts = [
        "Fine-tune language models. Every setting is a word on the command line.",
        f"{_bold('Usage')}\n{USAGE}",
        f"{_bold('Groups')} (GROUP=CHOICE picks a file, GROUP.NAME=VALUE sets a value)\n"
        + "\n".join(map(_group, GROUPS)),
        f"{_bold('Commands')}\n"
        + "\n".join(f"  llmf {command.usage:<18}{command.help}" for command in COMMANDS.values()),
        f"{_bold('Where next')}\n{WHERE_NEXT}",
    ]
    return "\n\n".join(parts)


def page(word: str) -> str:
    """What `--help WORD` shows: a group's page, else what `llmf explain` says of a parameter or a choice."""
    if word in GROUPS:
        return group_page(word)
    from llmf_hydra.cli.explain import explain

    key, _, value = word.lstrip("+~").partition("=")
    return explain(f"{key}={value}" if value and key in GROUPS else key)


def group_page(name: str) -> str:
    """All parameters of a group; Refused with the nearest name if there is no such group."""
    if name not in GROUPS:
        raise Refused([Problem(f"--help {name}", NO_VALUE, "is no group", did_you_mean(name, GROUPS))])
    head = _wrap(f"{name}: {wording.about(name)}", "", "  ").replace(name, _bold(name), 1)
    listed_choices = _wrap(f"Choices: {', '.join(choices(name))}", "  ", "    ")
    listed = [_parameter(entry) for entry in entries().values() if entry.group == name]
    return "\n\n".join(
        [f"{head}\n{listed_choices}", *listed, f"llmf explain {name}.NAME says more of one parameter."]
    )


def _group(name: str) -> str:
    line = f"{wording.about(name)}: {', '.join(choices(name))}"
    return _wrap(line, f"  {name:<14}", " " * 16).replace(name, _bold(name), 1)


def _parameter(entry: Entry) -> str:
    """A parameter's name and facts, and under them what it is for and when it acts."""
    allowed, acts = wording.allowed(entry), wording.acts_with(entry)
    marks = [f"only with {acts}"] if acts else []
    marks += [f"default from {entry.param.env}"] if entry.param.env else []
    marks += [wording.NOT_BUILT] if entry.param.planned else []
    facts = f"{entry.name}  {entry.type_name}, default {wording.default_of(entry)}" + (
        f"; {allowed}" if allowed else ""
    )
    told = entry.param.help + (f" [{'; '.join(marks)}]" if marks else "")
    head = _wrap(facts, "  ", " " * 6).replace(entry.name, _bold(entry.name), 1)
    return f"{head}\n{_wrap(told, ' ' * 6, ' ' * 6)}"


def _wrap(text: str, first: str, then: str) -> str:
    """Wrapped to the terminal; the name in it is made bold afterwards, as signs for that have no width."""
    return textwrap.fill(
        text,
        _width(),
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )


@functools.cache
def _width() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given) > 0:
        return max(40, int(given))
    try:
        return max(40, min(120, os.get_terminal_size(sys.stdout.fileno()).columns))
    except (OSError, ValueError):  # not a terminal, or no file at all
        return 100


def _bold(text: str) -> str:
    on_terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\033[1m{text}\033[0m" if on_terminal else text
