"""`use_fast_tokenizer=false`: the tokenizer in Python, by SentencePiece, where a model comes with its file."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.optional import require

KEY = "model.use_fast_tokenizer"
FILE = "tokenizer.model"


def slow_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the folder's SentencePiece file, with the special tokens and the template of the fast one.

    Transformers 5 loads the fast one whatever it is asked for. Raises Refused where there is no such file.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        what = f"the model has a fast tokenizer alone: its folder holds no {FILE}"
        raise Refused([Problem(KEY, False, what, "leave it out")])
    require("sentencepiece", extra="sentencepiece", key=KEY)
    fast = AutoTokenizer.from_pretrained(folder)
    slow = SentencePieceBackend(vocab_file=str(file), **fast.special_tokens_map)
    slow.chat_template = fast.chat_template
    slow.name_or_path = str(fast.name_or_path)
    return slow
