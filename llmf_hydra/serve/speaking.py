"""What engines share: dialogues and texts to tokens, what ends an answer, and how long it may be."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from llmf_hydra.data.rows import BadRow, Message, Row, check_characters
from llmf_hydra.data.tokenize.features import Setup
from llmf_hydra.errors import LlmfError
from llmf_hydra.serve.engine import Answer, Finish, Piece, Request, Token, Tools
from llmf_hydra.serve.loading import Model
from llmf_hydra.serve.text import Ends
from llmf_hydra.training.generation import StopTexts


class TooLong(LlmfError, ValueError):
    """The prompt leaves no room for an answer."""


class Closed(LlmfError, RuntimeError):
    """The engine was closed while an answer waited."""


class Speaking(ABC):
    """The half of an engine that knows no weights."""

    @property
    @abstractmethod
    def loaded(self) -> Model:
        """See `engine.Engine`."""

    def prompt(self, messages: Sequence[Message], tools: Tools | None = None) -> list[int]:
        """See `engine.Engine`."""
        return self._speech.prompt_ids(_row(messages, tools))

    def dialogue(self, messages: Sequence[Message], tools: Tools | None = None) -> list[int]:
        """See `engine.Engine`."""
        if not messages or messages[-1]["role"] != "assistant":
            raise BadRow("messages", "do not end with an answer", "end them with a message of the assistant")
        return self._speech.answered_ids(_row(messages, tools))

    @property
    def _speech(self) -> Setup:
        speech = self.loaded.speech
        if speech is None:
            remedy = "name one, such as data.template=chatml"
            raise BadRow("messages", "cannot be written: the model has no chat template", remedy)
        return speech

    def tokenize(self, text: str) -> list[int]:
        """See `engine.Engine`."""
        return list(self.loaded.tokenizer(text)["input_ids"])


def room(model: Model, request: Request) -> int:
    """Maximum tokens of the answer. Raises TooLong where the prompt leaves none."""
    prompt = len(request.prompt)
    if not prompt:
        raise TooLong("the prompt is empty")
    limit = request.decoding.limit(prompt)
    if model.limit is None:
        return limit
    if prompt >= model.limit:
        raise TooLong(f"the prompt has {prompt} tokens, and the model takes {model.limit} with the answer")
    return min(limit, model.limit - prompt)


def whole(pieces: Iterator[Piece]) -> Answer:
    """The answer whose pieces these are."""
    text: list[str] = []
    tokens: list[Token] = []
    finish = Finish.CANCELLED
    for piece in pieces:
        text.append(piece.text)
        tokens += piece.tokens
        finish = piece.finish or finish
    return Answer("".join(text), tuple(tokens), finish)


def _row(messages: Sequence[Message], tools: Tools | None) -> Row:
    row = Row(prompt=list(messages), tools=tools or None)
    check_characters(row)
    return row


def ends(model: Model, configured: int | list[int] | None) -> Ends:
    """The end tokens of the tokenizer, those of the model's generation config, and the template's ends of a turn."""
    tokenizer = model.tokenizer
    written = {stop: tokenizer.encode(stop, add_special_tokens=False) for stop in model.stops}
    single = [one[0] for one in written.values() if len(one) == 1]
    ids = [tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured]), *single]
    several = tuple(stop for stop, many in written.items() if len(many) > 1)
    texts = StopTexts(tokenizer, several) if several else None
    return Ends(frozenset(one for one in ids if isinstance(one, int)), texts)
