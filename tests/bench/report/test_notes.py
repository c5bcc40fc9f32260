"""Every sentence under a table follows from the fields of the protocol."""

from collections.abc import Callable
from pathlib import Path

from bench.report.folder import FILES, render
from bench.report.notes import arms, footer, shared, warning
from bench.report.summary import summary
from bench.results.protocol import Mark, Protocol, Reward

MakeProtocol = Callable[..., Protocol]


def test_the_footer_is_worded_from_fields(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol(
        {
            "prompts.ids": ("a", "b", "c"),
            "prompts.repeated": 4,
            "prompts.split": "unstated",
            "images.per_prompt": 2,
            "images.eta": 0.5,
            "images.dtype": "bfloat16",
            "pairs.kept": 1842,
            "bench": "9.9.9",
        }
    )
    assert list(footer(protocol)) == [
        "3 prompts of made-up (unstated split, sha256 0123456789ab, 4 repeated left out), "
        "2 image(s) each: ddim, 12 steps, guidance 7.5, eta 0.5, seed 3, bfloat16.",
        "1842 training pairs (10 ties dropped); training seeds 0, 1, 2.",
        "truth: truth|1",
        "flaws: flaws|1",
        "dpo-bench 9.9.9.",
    ]


def test_arms_that_are_not_like_others(make_protocol: MakeProtocol) -> None:
    """One that is the run of another, and one whose prompts have a prefix."""
    every = (
        {"name": "base", "seeds": (None,)},
        {"name": "DPO", "seeds": (0, 1, 2), "prompt_prefix": "good image, "},
        {"name": "DPO+A", "seeds": (0, 1, 2), "same_as": "DPO"},
    )
    assert list(arms(make_protocol({"arms": every}))) == [
        "DPO was trained to have 'good image, ' before every prompt: its images are made of both, "
        "and scored by the prompt alone.",
        "DPO+A is no run of its own: all settings of it that count are those of DPO, and there is "
        "nothing to compare.",
    ]


def test_marks_are_worded_one_after_the_other() -> None:
    marks = (
        Mark(kind="labelled"),
        Mark(kind="same-set", datasets=("Pick-a-Pic/test",)),
        Mark(kind="same-source", datasets=("Pick-a-Pic/train", "Pick-a-Pic/validation")),
    )
    reward = Reward(name="r", direction="higher", signature="r|1", marks=marks)
    assert warning(reward) == (
        "the preferences of the training pairs were made from it; trained on Pick-a-Pic/test, "
        "where the prompts come from; trained on Pick-a-Pic/train, Pick-a-Pic/validation, of one "
        "source with the prompts"
    )
    assert warning(reward.model_copy(update={"marks": ()})) == ""


def test_shared_prompts_are_told_with_every_table(
    make_protocol: MakeProtocol, result_folder: Callable[..., Path]
) -> None:
    told = "3 of 20 prompts are captions of training pairs, too."
    folder = result_folder(make_protocol({"pairs.shared_prompts": 3}))
    for name in FILES:
        text = (folder / name).read_text()
        assert told in text or '"shared_prompts": 3' in text, name
    assert told in summary(render(folder))


def test_results_of_before_they_were_counted_stay_as_they_are(
    make_protocol: MakeProtocol, result_folder: Callable[..., Path]
) -> None:
    protocol = make_protocol()
    assert list(shared(protocol)) == []
    assert "shared_prompts" not in protocol.model_dump_json()
    assert "shared_prompts" not in (result_folder(protocol) / "table.json").read_text()
