"""What is repaired in a prompt before it becomes tokens, and what is not."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench.assets import mini_folder
from bench.rewards.kit.text import CLIP_END, encode, open_clip_tokens, read_tokenizer
from trainers.errors import UserError

FILE = mini_folder() / "rewards/clip/tokenizer.json"
LENGTH = 64
REPAIRED = {
    "\u201cring\u201d": '"ring"',
    "\u2018ring\u2019": "'ring'",
    "\ufb01ve \ufb02at rings": "five flat rings",
    "\uff32\uff49\uff4e\uff47": "Ring",
    "caf\u00c3\u00a9": "caf\u00e9",
    "ring\u00e2\u20ac\u2122s": "ring's",
    "red &amp; blue": "red & blue",
    "red &amp;amp; blue": "red & blue",
    "&lt;ring&gt;": "<ring>",
    "ri\u0007ng": "ring",
    "\ufeffring": "ring",
}
"""Prompts, and what OpenAI's clip, open_clip and hpsv2 make of them."""
KEPT = ("a \u2014 b", "a\u2026", "x\u00b2", "\u00abring\u00bb", "a \U0001f431", "ri\u200bng")
"""Prompts that nobody repairs."""


@pytest.fixture
def tokenizer() -> Tokenizer:
    words = Tokenizer.from_file(str(FILE)).get_vocab_size()
    return read_tokenizer(FILE, LENGTH, CLIP_END, range(words, words + 1))


@pytest.mark.parametrize(("prompt", "meant"), REPAIRED.items())
def test_what_is_repaired_as_open_clip_does(tokenizer: Tokenizer, prompt: str, meant: str) -> None:
    """`clip-h14` and HPSv2 read what was meant; `clip` and PickScore read something else."""
    found, expected = open_clip_tokens(tokenizer, [prompt, meant])
    assert found.tolist() == expected.tolist()
    found, expected = encode(tokenizer, [prompt, meant])[0]
    assert found.tolist() != expected.tolist()


@pytest.mark.parametrize("prompt", KEPT)
def test_what_nobody_repairs(tokenizer: Tokenizer, prompt: str) -> None:
    """Both read it alike."""
    (cleaned,), (plain,) = open_clip_tokens(tokenizer, [prompt]), encode(tokenizer, [prompt])[0]
    assert cleaned.tolist() == plain.tolist()


@pytest.mark.parametrize("words", [range(1, 10), range(49408, 49409)])
def test_a_tokenizer_of_another_text_model_is_refused(words: range) -> None:
    """With more tokens than the model knows, or with fewer, it would read other words."""
    with pytest.raises(UserError, match=f"that knows {words[-1]} tokens, got one of 612: take it"):
        read_tokenizer(FILE, LENGTH, CLIP_END, words)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.json: expected"):
        read_tokenizer(tmp_path / "tokenizer.json", LENGTH, CLIP_END, range(1, 10**6))
