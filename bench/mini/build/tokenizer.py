"""A real CLIP byte-pair tokenizer whose vocabulary is learnt from the world's captions."""

from itertools import pairwise

from transformers import CLIPTokenizer

from bench.world.scenes import all_scenes

LENGTH = 16
"""Tokens per caption, start and end included; the longest caption has 13."""
SPECIAL = ("<|startoftext|>", "<|endoftext|>")

Pair = tuple[str, str]


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes of GPT-2's tokenizer, in its order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def learn_merges(words: list[str]) -> list[Pair]:
    """Byte-pair merges that turn each word into one token (Sennrich et al. 2016).

    Each round merges the most frequent neighbouring pair, the alphabetically first among equals.
    """
    split = [[*word[:-1], word[-1] + "</w>"] for word in sorted(set(words))]
    merges: list[Pair] = []
    while any(len(pieces) > 1 for pieces in split):
        counts: dict[Pair, int] = {}
        for pieces in split:
            for pair in pairwise(pieces):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        split = [_merged(pieces, best) for pieces in split]
    return merges


def _merged(pieces: list[str], pair: Pair) -> list[str]:
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def new_tokenizer() -> CLIPTokenizer:
    """The tokenizer of every text tower of the miniature world."""
    merges = learn_merges([word for scene in all_scenes() for word in scene.caption.split()])
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *("".join(m) for m in merges), *SPECIAL]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[*merges],
        model_max_length=LENGTH,
    )
