"""The words of the command line beside a run's own: one table, for the dispatch and for the overview."""

import argparse
from dataclasses import dataclass
from typing import NoReturn

from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean


@dataclass(frozen=True)
class Command:
    """A word, what follows it, what it does, and the module whose `main(argv)` answers."""

    usage: str
    help: str
    module: str


COMMANDS = {
    "explain": Command("explain NAME", "one parameter: type, default, range, and the rules about it",
                       "llmf_hydra.cli.explain"),
    "compose": Command("compose WORDS", "the config that a command line stands for, and what would be refused of it",
                       "llmf_hydra.cli.compose"),
    "env": Command("env", "versions, devices and variables, for a bug report", "llmf_hydra.cli.env"),
    "status": Command("status", "what is declared and not built yet", "llmf_hydra.cli.status"),
    "runs": Command("runs", "the run folders: date, status, stage, method, model, objective; --best ranks them",
                    "llmf_hydra.cli.runs"),
    "diff": Command("diff RUN RUN", "two runs: config, code, packages, data, seeds, metrics; --plot draws their losses",
                    "llmf_hydra.cli.diff"),
    "resume": Command("resume RUN", "go on from the run's own last checkpoint", "llmf_hydra.cli.resume"),
    "reproduce": Command("reproduce RUN", "run it again, and compare code, packages, data, log and weights",
                         "llmf_hydra.cli.reproduce"),
    "sweep": Command("sweep show DIR", "a study: show, resume or report it", "llmf_hydra.cli.sweep"),
    "import": Command("import FILE.yaml", "turn a flat LLaMA-Factory YAML into an experiment",
                      "llmf_hydra.cli.llamafactory.importer"),
    "data": Command("data", "list, validate, convert datasets", "llmf_hydra.cli.data"),
    "expand": Command("expand MODEL", "add identity blocks to a model, for method=llama_pro", "llmf_hydra.cli.expand"),
    "models": Command("models", "the choices of model=: name, size and chat template", "llmf_hydra.cli.models"),
    "samples": Command("samples RUN", "what a run of stage=grpo was answered, best and worst side by side",
                       "llmf_hydra.cli.samples"),
    "score": Command("score", "score a file of answers with a reward model", "llmf_hydra.cli.score"),
}  # fmt: skip


class RefusingParser(argparse.ArgumentParser):
    """Refuses in one line, and a choice that isn't one with the nearest that is."""

    def error(self, message: str) -> NoReturn:
        raise Refused([Problem(self.prog.removeprefix("llmf "), NO_VALUE, message, f"`{self.prog} --help`")])

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            allowed = [str(choice) for choice in action.choices]
            if action.dest == argparse.SUPPRESS:  # a word below this one
                what, remedy = f"is not one of {', '.join(allowed)}", did_you_mean(str(value), allowed)
                raise Refused([Problem(f"{self.prog} {value}", NO_VALUE, what, remedy)])
            name = action.option_strings[-1] if action.option_strings else action.dest.upper()
            raise Refused([Problem.bad_choice(name, value, allowed)])


class Parser(RefusingParser):
    """The parser of one word, which knows its help from the table."""

    def __init__(self, word: str):
        super().__init__(
            f"llmf {word}", description=f"{COMMANDS[word].help[:1].upper()}{COMMANDS[word].help[1:]}."
        )
