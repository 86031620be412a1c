"""The commands of a chat. Each returns what is noted, and raises Wrong where it can't be done."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmf_hydra.serve.terminal.dialogue import Dialogue


class Ended(Exception):
    """The user has ended the chat."""


class Wrong(Exception):
    """What was typed can't be done."""


@dataclass(frozen=True)
class Command:
    """A word that begins with /."""

    usage: str
    help: str
    run: Callable[[Dialogue, str], str]


def _system(dialogue: Dialogue, text: str) -> str:
    if not text:
        return f"system: {dialogue.system}" if dialogue.system else "there is no system message"
    dialogue.system = None if text == "-" else text
    return "the system message acts from the next answer on"


def _clear(dialogue: Dialogue, text: str) -> str:
    dialogue.clear()
    return "the dialogue begins anew"


def _retry(dialogue: Dialogue, text: str) -> str:
    if not dialogue.forget_answer():
        raise Wrong("/retry: there is no answer yet")
    return ""


def _save(dialogue: Dialogue, text: str) -> str:
    if not text:
        raise Wrong("/save: name a file, such as /save chat.jsonl")
    if not dialogue.turns:
        raise Wrong("/save: nothing was said yet")
    file = dialogue.folder / Path(text).expanduser()
    try:
        with file.open("x", encoding="utf8") as opened:
            opened.write(dialogue.as_row())
    except FileExistsError:
        raise Wrong(f"/save: {file} is there already; name a new file") from None
    except OSError as error:
        raise Wrong(f"/save: {file} cannot be written: {error.strerror}") from None
    return f"saved to {file}"


def _tools(dialogue: Dialogue, text: str) -> str:
    if text == "-":
        dialogue.tools = None
        return "there are no tools"
    if text:
        file = dialogue.folder / Path(text).expanduser()
        try:
            dialogue.read_tools(file)
        except OSError as error:
            raise Wrong(f"/tools: {file} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise Wrong(f"/tools: {file} is not JSON: {error}") from None
    names = [tool["function"]["name"] for tool in dialogue.tools or ()]
    return f"tools: {', '.join(names)}" if names else "there are no tools"


def _help(dialogue: Dialogue, text: str) -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"{command.usage.ljust(width)}  {command.help}" for command in COMMANDS.values()]
    return "\n".join([*lines, f"{'Ctrl-C'.ljust(width)}  stop the answer"])


def _exit(dialogue: Dialogue, text: str) -> str:
    raise Ended


COMMANDS = {
    command.usage.partition(" ")[0]: command
    for command in (
        Command("/system TEXT", "set the system message; - removes it, nothing shows it", _system),
        Command("/clear", "forget the dialogue; the system message and the tools stay", _clear),
        Command("/retry", "answer the last message anew", _retry),
        Command("/save FILE", "save the dialogue as a row that trains", _save),
        Command("/tools FILE", "give the model the tools of a JSON file; - takes them away", _tools),
        Command("/help", "list the commands", _help),
        Command("/exit", "end the chat", _exit),
    )
}
