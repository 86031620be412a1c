"""The command line: the manual and the small commands at once, everything else to the launcher."""

import signal

# Until `main` answers Ctrl-C, it ends the process without a traceback, as it would before Python is up.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import gc
import importlib
import os
import sys

from llmf_hydra.runs import isolation

isolation.drop_working_directory()  # before anything is imported that the interpreter has not loaded itself

from llmf_hydra import terminal  # noqa: E402
from llmf_hydra.cli.commands import COMMANDS  # noqa: E402
from llmf_hydra.errors import DONE, INTERRUPTED, REFUSED, Refused, did_you_mean  # noqa: E402

FALSE = ("0", "false", "no", "off", "n")


def main(argv: list[str] | None = None) -> int:
    """Answer a command line; returns the exit code: 0 done, 1 failed, 2 refused, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    terminal.outlive_readers()
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _check_working_directory()
        if words and words[0] in COMMANDS:
            return importlib.import_module(COMMANDS[words[0]].module).main(words[1:])
        if not words or "--help" in words or "-h" in words:
            return _help([word for word in words if not word.startswith("-")])
        if "--version" in words:
            return _version()
        if words and "=" not in words[0] and not words[0].startswith(("-", "+", "~")):
            raise Refused([_unknown_command(words)])
        gc.set_threshold(200_000)  # composing makes many objects and no garbage: a tenth of the time
        from llmf_hydra import launch

        return launch.main(words)
    except Refused as refused:
        print(refused.report(), file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _check_working_directory() -> None:
    """Raise Refused where the command stands in a folder that was removed: no path could be found from there."""
    try:
        os.getcwd()  # noqa: PTH109 -- pathlib's own says the same
    except OSError:
        raise Refused(["the working directory is gone; change to a folder that is there"]) from None


def short() -> int:
    """The short command `llmf`; launch.enable_short_console takes it away."""
    if os.environ.get("ENABLE_SHORT_CONSOLE", "1").lower() in FALSE:
        print("refused: ENABLE_SHORT_CONSOLE is off; the long name is llmf-hydra", file=sys.stderr)
        return REFUSED
    return main()


def _help(words: list[str]) -> int:
    command = next((word for word in words if word in COMMANDS), None)
    if command is not None:
        return importlib.import_module(COMMANDS[command].module).main(["--help"])
    from llmf_hydra.cli import help as manual

    print("\n\n".join(map(manual.page, words)) if words else manual.overview())
    return DONE


def _version() -> int:
    from llmf_hydra import __version__

    print(__version__)
    return DONE


def _unknown_command(words: list[str]) -> str:
    """What was probably meant: another program's `train FILE.yaml`, a command, or a setting."""
    word = words[0]
    file = next((other for other in words if other.endswith((".yaml", ".yml"))), None)
    if file is not None:
        what = "a file is no setting" if file == word else "no such command"
        return (
            f"{word}: {what}; `llmf import {file}` makes an experiment of it, and experiment=NAME runs that"
        )
    if word == "train":
        return "train: no such command; settings alone train: `llmf-hydra stage=sft model=tiny`"
    remedy = did_you_mean(word, COMMANDS) or "`llmf-hydra --help` lists the commands; a setting is KEY=VALUE"
    return f"{word}: no such command; {remedy}"


if __name__ == "__main__":
    sys.exit(main())
