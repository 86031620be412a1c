"""`llmf explain WORD`: all that is known of one parameter.

The word may be a name (`pref_beta`), a full key, an environment variable, a row of the specification that
became a choice (`use_galore`), a name of LLaMA-Factory or Transformers, or a choice (`method=dora`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from llmf_hydra import refusals
from llmf_hydra.cli import wording
from llmf_hydra.cli.commands import Parser
from llmf_hydra.cli.llamafactory.trainer_names import TRAINER_NAMES
from llmf_hydra.config.conf_files import check_user_conf, choices, flat_values
from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.config.spec import ANY, Row, rows, rows_at, rows_named
from llmf_hydra.errors import DONE, NO_VALUE, Problem, Refused, did_you_mean
from llmf_hydra.paths import conf_dir, user_conf_dir


def main(argv: Sequence[str]) -> int:
    """Answer `llmf explain WORD...`; Refused if a word is unknown or none is given."""
    parser = Parser("explain")
    parser.add_argument(
        "name", nargs="*", help="a name, a full key, a variable, or a choice such as method=dora"
    )
    words: list[str] = parser.parse_args(argv).name
    if not words:
        raise Refused(["explain: which parameter? For example `llmf explain pref_beta`"])
    check_user_conf()
    print("\n\n".join(map(explain, words)))
    return DONE


def explain(word: str) -> str:
    """The answer for one word, all of them where several parameters have that name; Refused if unknown."""
    if "=" in word:
        return _choice(*word.split("=", 1))
    if word in GROUPS:
        word = f"{word}.name" if f"{word}.name" in entries() else word
    pages = [_page(entry) for entry in _homes(word)]
    pages += [_row_page(row) for row in rows_named(word) if row.place.choice]
    if not pages and word in TRAINER_NAMES:
        pages = [_foreign(word)]
    if not pages:
        raise Refused([Problem(word, NO_VALUE, "is no parameter", did_you_mean(word, _known_words()))])
    return "\n\n".join(pages)


def _homes(word: str) -> list[Entry]:
    """The parameters of that key, name or environment variable."""
    return [e for e in entries().values() if word in (e.key, e.name, e.param.env)]


def _known_words() -> list[str]:
    """Every word that has an answer, for the nearest one."""
    names = {name for e in entries().values() for name in (e.key, e.name, e.param.env) if name}
    return sorted(names | {row.name for row in rows()} | TRAINER_NAMES.keys())


def _page(entry: Entry) -> str:
    return _lines(f"{entry.key}: {entry.param.help}", _facts(entry))


def _facts(entry: Entry) -> Iterator[tuple[str, str]]:
    declared = entry.param
    yield "type", entry.type_name
    yield "default", wording.default_of(entry)
    yield "allowed", wording.allowed(entry)
    yield "variable", f"{declared.env}, read once as the default" if declared.env else ""
    rules = refusals.rules_about(entry.key)
    everywhere = "what the rules below allow" if rules else "every stage, method and job that reads it"
    yield "acts with", wording.acts_with(entry) or everywhere
    for row in rows_at(entry.key):
        yield "spec", _spec(row)
    for rule in rules:
        yield "rule", f"{rule.sentence} ({', '.join(rule.keys)}; job={' or '.join(rule.jobs)})"
    yield "secret", "never written to disk" if declared.secret else ""
    yield "built", f"{wording.NOT_BUILT}: setting it is refused" if declared.planned else "yes"
    yield (
        "set it",
        f"{entry.group}=CHOICE, one of {', '.join(choices(entry.group))}" if entry.is_choice else "",
    )


def _row_page(row: Row) -> str:
    """A row of the specification that became a choice: where it went, then the parameter it chooses."""
    choice = "CHOICE" if row.place.choice == ANY else str(row.place.choice)
    built = "" if row.place.built else f"; {wording.NOT_BUILT}: choosing it is refused"
    return (
        f"{row.name} is the choice {row.place.entry.group}={choice} here{built}\n\n{_page(row.place.entry)}"
    )


def _spec(row: Row) -> str:
    told = f"{row.table}.{row.name}, {row.type}"
    return (
        told
        + (f", default {row.default}" if row.default else "")
        + (f" -> {row.place}" if row.place.choice else "")
    )


def _foreign(word: str) -> str:
    fate = TRAINER_NAMES[word]
    told = f"{word} (a name of Transformers or LLaMA-Factory): {fate}"
    return f"{told}\n\n{_page(entries()[fate.key])}" if fate.key else told


def _choice(group: str, choice: str) -> str:
    """What a choice such as `method=dora` sets, in the words of its file."""
    if group not in GROUPS:
        raise Refused([Problem(group, NO_VALUE, "is no group", did_you_mean(group, GROUPS))])
    if choice not in choices(group):
        raise Refused([Problem.bad_choice(group, choice, choices(group))])
    roots = [root for root in (user_conf_dir(), conf_dir()) if root is not None]
    file = next(path for root in roots if (path := root / group / f"{choice}.yaml").is_file())
    sets = file.read_text(encoding="utf-8").rstrip().replace("\n", "\n" + " " * 14)
    spec = [("spec", _spec(row)) for row in rows() if str(row.place) == f"{group}={choice}"]
    facts = [("sets", sets), ("file", str(file)), ("built", _built(file, group)), *spec]
    return _lines(f"{group}={choice}: a choice of {group}, {wording.about(group)}", facts)


def _built(file: Path, group: str) -> str:
    values = flat_values(file, group).items()
    refused = [key for key, value in values if key in entries() and entries()[key].not_built(value)]
    return f"{wording.NOT_BUILT}, and so refused: {', '.join(refused)}" if refused else "yes"


def _lines(head: str, facts: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    return "\n".join([head, *(f"  {name:<12}{text}" for name, text in facts if text)])
