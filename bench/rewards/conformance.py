"""What every reward must do, whatever it computes: for the author of one to check.

    from bench.rewards.conformance import check
    check(Colourfulness)

Each check is a function of a way to make the reward, images and prompts, and raises an
AssertionError that says what is wrong.
"""

import io
import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Reward, Scores
from bench.world.scenes import draw_look, render, scenes
from trainers.errors import UserError
from trainers.input.image import open_image
from trainers.seeds import numpy_generator

Make = Callable[..., Reward]
"""Makes the reward; takes ``dtype`` if the reward has several. A reward's class is one."""
Images = Sequence[Image.Image]
Prompts = Sequence[str]

RTOL, ATOL = 1e-5, 1e-5
"""What rounding may change in a score when other images are scored along with it: a float32 model
takes other kernels for other shapes, also for the last rows of a batch, and gives features that
agree to 1e-5 of their size. ``RTOL`` is of the score, ``ATOL`` of half the span that the card
expects."""


def pictures() -> tuple[list[Image.Image], list[str]]:
    """Seven pictures of the miniature world with their captions, two of which are equal."""
    rng = numpy_generator(0, "conformance")
    told = [scenes("test")[i] for i in (0, 40, 81, 122, 163, 204, 40)]
    return [Image.fromarray(render(s, draw_look(rng))) for s in told], [s.caption for s in told]


def check(make: Make, images: Images | None = None, prompts: Prompts | None = None) -> None:
    """Run every check.

    Args:
        make: The reward's class, or a function that makes it of the same keyword arguments. What
            it makes should share nothing (``shared=Shared(kept=0)``), or values that are kept from
            an earlier call could hide a fault.
        images: Images that the reward gives different scores, at least three; None for
            :func:`pictures`.
        prompts: A prompt for each, at least two of them different.

    Raises:
        AssertionError: At the first check that fails.
    """
    if images is None or prompts is None:
        images, prompts = pictures()
    for one in CHECKS:
        one(make, images, prompts)


def scores_are_finite_and_differ(make: Make, images: Images, prompts: Prompts) -> None:
    """One finite float32 for each image, not all the same; none for no image."""
    reward = make()
    scores = reward.score(images, prompts)
    got = f"{scores.dtype}{list(scores.shape)}"
    expect(got == f"float32[{len(images)}]", f"float32[{len(images)}] from score(), got {got}")
    expect(bool(np.isfinite(scores).all()), f"finite scores, got {scores.tolist()}")
    expect(len(set(scores.tolist())) > 1, f"scores that differ, got {scores[0]} for every image")
    expect(reward.score([], []).shape == (0,), "no score for no image")


def company_changes_nothing(make: Make, images: Images, prompts: Prompts) -> None:
    """Batch size and the other images change a score by rounding only."""
    reward = make()
    whole = reward.score(images, prompts)
    pairs = zip(images, prompts, strict=True)
    alone = np.concatenate([reward.score([image], [prompt]) for image, prompt in pairs])
    _close(reward, alone, whole, "the same scores one image at a time as all together")
    reward.batch_size = 3
    _close(reward, reward.score(images, prompts), whole, "the same scores with a batch size of 3")


def order_changes_nothing(make: Make, images: Images, prompts: Prompts) -> None:
    """The order of images changes a score by rounding only."""
    reward = make()
    order = numpy_generator(0, "conformance", "order").permutation(len(images))
    shuffled = reward.score([images[i] for i in order], [prompts[i] for i in order])
    whole = reward.score(images, prompts)
    _close(reward, shuffled, whole[order], "the same scores in another order")


def scores_are_repeatable(make: Make, images: Images, prompts: Prompts) -> None:
    """Two objects give the same bits, and no global random state is drawn from or set."""
    import torch

    def states() -> tuple[object, ...]:
        # The legacy generator is read, never drawn from: a reward must leave it alone.
        own = np.random.get_state(legacy=True)  # noqa: NPY002
        return (random.getstate(), *map(str, own), torch.random.get_rng_state().tolist())

    before = states()
    first, second = make().score(images, prompts), make().score(images, prompts)
    same = np.array_equal(first, second)
    expect(same, f"the same bits twice, got {first.tolist()} and {second.tolist()}")
    expect(states() == before, "the global random states left alone: use generators of your own")


def a_png_scores_as_its_image(make: Make, images: Images, prompts: Prompts) -> None:
    """What was written as PNG and read again has the same scores, bit for bit."""
    reward = make()
    read = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        read.append(open_image(stream.getvalue()))
    before, after = reward.score(images, prompts), reward.score(read, prompts)
    expect(np.array_equal(before, after), f"{before.tolist()} from PNG files, got {after.tolist()}")


def lengths_must_agree(make: Make, images: Images, prompts: Prompts) -> None:
    """Images and prompts that are not pairs are refused with a UserError."""
    try:
        make().score(images, prompts[:-1])
    except UserError:
        return
    raise AssertionError(
        f"expected a UserError for {len(images)} images and {len(images) - 1} prompts: call "
        "check_lengths"
    )


def the_prompt_matters_as_the_card_says(make: Make, images: Images, prompts: Prompts) -> None:
    """Other prompts change the score of an image exactly where the card has a ``text``."""
    reward = make()
    scores = reward.score([images[0]] * len(prompts), prompts)
    # One image repeated in a batch need not have one score to the bit.
    differ = not _near(scores, np.full_like(scores, scores[0]), reward)
    text = reward.card.text
    changed = "change" if differ else "do not change"
    expect(differ == (text is not None), f"card.text is {text!r}, but prompts {changed} the score")


def the_signature_is_complete(make: Make, images: Images, prompts: Prompts) -> None:
    """The signature names what is computed, is the same again, and changes with the card."""
    reward = make()
    card, signature = reward.card, reward.signature
    parts = signature.split("|")
    named = len(parts) == 5 and (parts[0], parts[2], parts[3]) == (
        card.name,
        card.scale,
        card.dtype,
    )
    expect(named, f"name|origin|scale|dtype|digest of the card, got {signature}")
    expect(make().signature == signature, f"one signature, got {signature} and {make().signature}")
    low, high = card.range
    expect(low < high, f"a card with a range from low to high, got {card.range}")
    files = {name for source in card.weights for name in source.files}
    expect(set(reward.files.sha256) == files, f"a hash of each of {sorted(files)}")
    reward.card = card.model_copy(update={"version": card.version + 1})
    expect(reward.signature != signature, "another signature with another version of the card")


def every_dtype_works(make: Make, images: Images, prompts: Prompts) -> None:
    """Each precision that the reward can be asked for gives finite scores and is named."""
    for dtype in make().dtypes:
        reward = make(dtype=dtype)
        scores = reward.score(images, prompts)
        expect(f"|{dtype}|" in reward.signature, f"{dtype} in the signature {reward.signature}")
        expect(bool(np.isfinite(scores).all()), f"finite scores in {dtype}, got {scores.tolist()}")


CHECKS: tuple[Callable[[Make, Images, Prompts], None], ...] = (
    scores_are_finite_and_differ,
    company_changes_nothing,
    order_changes_nothing,
    scores_are_repeatable,
    a_png_scores_as_its_image,
    lengths_must_agree,
    the_prompt_matters_as_the_card_says,
    the_signature_is_complete,
    every_dtype_works,
)


def expect(holds: bool, what: str) -> None:
    """Raise an AssertionError that says what was expected, also where Python skips asserts."""
    if not holds:
        raise AssertionError(f"expected {what}")


def _near(got: Scores, wanted: NDArray[np.float32], reward: Reward) -> bool:
    """Whether scores differ by rounding at most."""
    low, high = reward.card.range
    return np.allclose(got, wanted, rtol=RTOL, atol=ATOL * (high - low) / 2)


def _close(reward: Reward, got: Scores, wanted: NDArray[np.float32], what: str) -> None:
    worst = float(np.abs(got - wanted).max())
    expect(_near(got, wanted, reward), f"{what}, got a difference of {worst}")
