"""Prompts as token ids, as each published implementation makes them."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import ftfy
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trainers.errors import UserError
from trainers.input.paths import read_bytes

Ids = NDArray[np.int64]

CLIP_END = "<|endoftext|>"
"""CLIP's end token. Padding with it is harmless: attention is causal and the first one is read."""


def read_tokenizer(path: Path, length: int, pad: str, words: range) -> Tokenizer:
    """A tokenizer that truncates and pads to ``length`` tokens, keeping the end token.

    Args:
        path: Its ``tokenizer.json``.
        length: Tokens of a prompt.
        pad: The padding token.
        words: How many tokens it may know, by the text model that it is for.

    Raises:
        UserError: If the file is something else, or knows no such padding token, or more or fewer.
    """
    read_bytes(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises no narrower class.
        raise UserError(
            f"{path}: expected a tokenizer.json, got {error}: fetch the file again"
        ) from error
    pad_id = tokenizer.token_to_id(pad)
    if pad_id is None:
        raise UserError(f"{path}: expected a tokenizer with the token {pad!r}: fetch it again")
    if (own := tokenizer.get_vocab_size()) not in words:
        raise UserError(
            f"{path}: expected the tokenizer of a text model that knows {words[-1]} tokens, got "
            f"one of {own}: take it from the model's repository"
        )
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=pad_id, pad_token=pad)
    return tokenizer


def encode(tokenizer: Tokenizer, prompts: Sequence[str]) -> tuple[Ids, Ids]:
    """Token ids and attention mask, each ``int64[n, length]``."""
    encodings = tokenizer.encode_batch(list(prompts))
    ids = np.array([e.ids for e in encodings], np.int64)
    return ids, np.array([e.attention_mask for e in encodings], np.int64)


def open_clip_tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> Ids:
    """Token ids ``[n, length]`` as open_clip's tokenizer makes them.

    It repairs mojibake, resolves HTML entities twice and takes CLIP's special tokens in a prompt
    for ordinary text; CLIP's tokenizer in transformers does none of this.
    """
    tokenizer.encode_special_tokens = True
    return encode(tokenizer, [_open_clip_clean(prompt) for prompt in prompts])[0]


def _open_clip_clean(prompt: str) -> str:
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip().lower()
