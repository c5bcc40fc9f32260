"""Vocabularies, and tokenizer.json files in the layouts of the published ones.

Imports the standard library alone.

``merges.txt.gz`` holds the 48 894 merges that CLIP uses, lines 2 to 48 895 of OpenAI's
bpe_simple_vocab_16e6.txt (github.com/openai/CLIP, MIT licence), taken from open-clip-torch 2.32.0.
For BERT there is a small vocabulary made here: it is the algorithm that is compared.
"""

import gzip
import string
from pathlib import Path
from typing import Any

MERGES = Path(__file__).parent / "merges.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = (
    "a the of in on and with under from photo cat cup coffee table wood white red green blue dog "
    "astronaut suit orange moon rocket light morning focus film tea width first flower milk now"
)
_LETTERS = (
    string.ascii_lowercase
    + string.digits
    + "\u043a\u043e\u0448\u0430\u03bf\u03b4\u03c5\u03c3\u03c2\u03b5"
    + "\u00b2\u00df\u00a3\u00e2\ufb01\uff46"
)
_ENDS = "##s ##ing ##ed ##er ##ly ##tion ##th ##on ##en ##ro ##naut ##ight"


def merges() -> list[str]:
    """CLIP's merges, two symbols with a space between, the most frequent first."""
    return gzip.decompress(MERGES.read_bytes()).decode().split("\n")


def clip_ids() -> dict[str, int]:
    """CLIP's 49 408 tokens: bytes, bytes that end a word, merges, start and end."""
    letters = list(_byte_letters())
    words = [*letters, *(f"{x}</w>" for x in letters), *(m.replace(" ", "") for m in merges())]
    return {word: number for number, word in enumerate([*words, START, END])}


def _byte_letters() -> str:
    """A printable letter for each byte, those that are printable in Latin-1 first."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return "".join(map(chr, [*shown, *range(0x100, 0x100 + 256 - len(shown))]))


def clip_tokenizer() -> dict[str, Any]:
    """tokenizer.json of CLIP."""
    parts = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(49406, START, True), _special(49407, END, True)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": parts},
                    "behavior": "Removed",
                    "invert": True,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": True,
                },
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END, 49407],
            "cls": [START, 49406],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": END,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": clip_ids(),
            "merges": merges(),
        },
    }


def bert_ids() -> dict[str, int]:
    """A vocabulary with the special tokens where bert-base-uncased has them."""
    words = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [*_LETTERS, *string.punctuation, *(f"##{x}" for x in _LETTERS)]
    words += _WORDS.split()[1:] + _ENDS.split()
    words += list("\u732b\u201c\u201d\u2019\u2014\u2026\u20ac\u2122\u00a9\u2615")
    return {word: number for number, word in enumerate(dict.fromkeys(words))}


def bert_tokenizer() -> dict[str, Any]:
    """tokenizer.json of bert-base-uncased, with the small vocabulary."""
    ids = bert_ids()
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    piece = {"id": "A", "type_id": 0}
    first, last = ({"SpecialToken": {"id": x, "type_id": 0}} for x in ("[CLS]", "[SEP]"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(ids[x], x, False) for x in specials],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, {"Sequence": piece}, last],
            "pair": [first, {"Sequence": piece}, last],
            "special_tokens": {
                x: {"id": x, "ids": [ids[x]], "tokens": [x]} for x in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def _special(number: int, content: str, normalized: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": True,
    }
