"""The requests of OpenAI's protocol, as far as they are answered here; what isn't is refused, never passed over.

Beyond the protocol a request may set `top_k`, `repetition_penalty` and `skip_special_tokens`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

SHORT, LONG = 256, 1_000_000  # characters of a name, of a text
MOST_MESSAGES, MOST_TOOLS, MOST_STOPS, MOST_PROMPTS, MOST_ANSWERS = 2048, 128, 16, 64, 16

Text = Annotated[str, Field(max_length=LONG)]
Name = Annotated[str, Field(max_length=SHORT)]
Stop = Annotated[str, Field(min_length=1, max_length=SHORT)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Strict(BaseModel):
    """A mapping without unknown fields: one that nobody reads would be a wish without effect."""

    model_config = ConfigDict(extra="forbid")


class Part(BaseModel):
    """A part of a message: text; parts of other types are named in the refusal."""

    type: Name
    text: Text | None = None


class Function(BaseModel):
    """A tool's function, or the call of one: `arguments` is JSON text."""

    name: Name
    description: Text | None = None
    parameters: dict[str, JsonValue] | None = None
    arguments: Text | None = None
    strict: bool | None = None


class Tool(Strict):
    """A function that the model may call."""

    type: Literal["function"] = "function"
    function: Function


class ToolCall(BaseModel):
    """A call that the model made in an earlier turn."""

    id: Name | None = None
    type: Literal["function"] = "function"
    function: Function


class ChatMessage(BaseModel):
    """A message of a dialogue."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None
    name: Name | None = None
    tool_call_id: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MOST_TOOLS)] | None = None


class StreamOptions(BaseModel):
    """What a stream has beside its pieces."""

    include_usage: bool = False


class NamedSchema(Strict):
    """A JSON schema that an answer follows; without one it is any object."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    name: Name
    description: Text | None = None
    of: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """Text, JSON, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type=json_schema, and with no other")
        return self


class FunctionName(Strict):
    """The function of a tool, by its name."""

    name: Name


class NamedTool(Strict):
    """The tool that must be called."""

    type: Literal["function"] = "function"
    function: FunctionName


class Generating(Strict):
    """What chats and completions share; left out, the group `generation` decides."""

    model: Name | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, lt=2**31)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10)
    skip_special_tokens: bool | None = None
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    n: int | None = Field(1, ge=1, le=MOST_ANSWERS)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    presence_penalty: Literal[0] | None = 0
    frequency_penalty: Literal[0] | None = 0
    user: Name | None = None
    metadata: dict[str, JsonValue] | None = None
    store: bool | None = None
    service_tier: Name | None = None

    @model_validator(mode="after")
    def _streams_what_it_names(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options acts only with stream=true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Generating):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: Literal[True] | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _names_what_it_needs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs acts only with logprobs=true")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ValueError("tool_choice acts only with tools")
        must_call = isinstance(self.tool_choice, NamedTool) or self.tool_choice == "required"
        if must_call and self.response_format is not None and self.response_format.type != "text":
            raise ValueError(
                "an answer is the call of a tool (tool_choice) or JSON (response_format), not both"
            )
        return self


class CompletionRequest(Generating):
    """`POST /v1/completions`."""

    prompt: (
        Text
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MOST_PROMPTS)
        ]
    )
    logprobs: int | None = Field(None, ge=0, le=20)


class ScoreRequest(Strict):
    """`POST /v1/score`: dialogues that end with an answer, or plain texts."""

    model: Name | None = None
    input: Annotated[list[Text | list[ChatMessage]], Field(min_length=1, max_length=MOST_PROMPTS)]


def usage(prompt: int, answer: int) -> dict[str, Any]:
    """Tokens of a request."""
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
