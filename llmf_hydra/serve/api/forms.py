"""The form that a request wants its answer in: JSON (`response_format`), or the call of a tool (`tool_choice`)."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llmf_hydra.data.formats.common import calls_of
from llmf_hydra.data.rows import Message
from llmf_hydra.errors import Refused
from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.protocol import ChatRequest, NamedTool
from llmf_hydra.serve.constraint import ANY_OBJECT, CannotConstrain, Constraint
from llmf_hydra.serve.engine import Decoding, Engine, Tools

# Arguments of the call by which a template shows how it writes one, and those arguments as it wrote them.
SHOWN = {"shown": 1}
WRITTEN = re.compile(r'\{\s*"shown"\s*:\s*1\s*\}')


class _Form(NamedTuple):
    """A schema, the text before the JSON of it, and the text after."""

    schema: Mapping[str, Any]
    before: str = ""
    after: str = ""
    field: str = "response_format"


def constraint_maker(
    engine: Engine,
    asked: ChatRequest,
    messages: Sequence[Message],
    tools: Tools | None,
    prompt: list[int],
    decoding: Decoding,
) -> Callable[[], Constraint] | None:
    """What makes the constraint of each answer to a request; None where anything may be answered. It asks the model
    which tool it would call, where one of several must be. Raises ApiError."""
    if isinstance(asked.tool_choice, NamedTool) or asked.tool_choice == "required":
        form = _call(engine, asked, messages, tools or [], prompt)
    elif asked.response_format is None or asked.response_format.type == "text":
        return None
    else:
        described = asked.response_format.json_schema
        form = _Form(ANY_OBJECT if described is None else described.of or ANY_OBJECT)
    constraints = engine.constraints
    if constraints is None:
        raise ApiError(400, f"{form.field} is not followed with infer_backend=vllm", param=form.field)
    if decoding.num_beams > 1:
        what = f"{form.field} is not followed in beam search (generation.num_beams={decoding.num_beams})"
        raise ApiError(400, what, param=form.field)

    def make() -> Constraint:
        try:
            return constraints.of(form.schema, form.before, form.after)
        except CannotConstrain as error:
            raise ApiError(400, f"{form.field}: {error}", param=form.field) from error
        except Refused as missing:
            raise ApiError(400, str(missing.problems[0]), param=form.field) from missing

    make()  # a schema that can't be followed is refused before anything is generated
    return make


def _call(
    engine: Engine, asked: ChatRequest, messages: Sequence[Message], tools: Tools, prompt: list[int]
) -> _Form:
    """The call of the tool that is named, or of that which the model finds likeliest."""
    named = asked.tool_choice.function.name if isinstance(asked.tool_choice, NamedTool) else None
    functions = [tool["function"] for tool in tools if named in (None, tool["function"]["name"])]
    if not functions:
        known = ", ".join(str(tool["function"]["name"]) for tool in tools)
        raise ApiError(400, f"tool_choice names the tool {named}; given are {known}", param="tool_choice")
    forms = [_Form(function.get("parameters") or ANY_OBJECT, *_around(engine, messages, tools, prompt, function),
                   "tool_choice") for function in functions]  # fmt: skip
    if len(forms) == 1:
        return forms[0]
    begun = [engine.loaded.tokenizer.encode(form.before, add_special_tokens=False) for form in forms]
    likely = [found for found, _ in engine.log_likelihoods([prompt] * len(forms), begun)]
    return forms[likely.index(max(likely))]


def _around(
    engine: Engine, messages: Sequence[Message], tools: Tools, prompt: list[int], function: Mapping[str, Any]
) -> tuple[str, str]:
    """What the template writes before and after the arguments of a call."""
    call = {"id": "call_shown", "function": {"name": function["name"], "arguments": SHOWN}}
    message: Message = {"role": "assistant", "content": "", "tool_calls": calls_of([call], "tool_calls")}
    decode = engine.loaded.tokenizer.decode
    asked, whole = str(decode(prompt)), str(decode(engine.dialogue([*messages, message], tools)))
    found = WRITTEN.search(whole, len(asked)) if whole.startswith(asked) else None
    if found is None:
        what = "the chat template writes no calls with arguments in JSON, so none can be required: tool_choice=auto"
        raise ApiError(400, what, param="tool_choice")
    return whole[len(asked) : found.start()], whole[found.end() :]
