"""Values and models that rewards share: computed once, bounded, and never seen in a score."""

import numpy as np

from bench.rewards.kit.shared import Shared


class Doubling:
    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def __call__(self, stack: np.ndarray) -> np.ndarray:
        self.batches.append(stack.ravel().tolist())
        return 2 * stack


def inputs(*values: float) -> list[np.ndarray]:
    return [np.array([value]) for value in values]


def test_rows_are_of_distinct_inputs_in_batches_and_in_order():
    forward = Doubling()
    rows, place = Shared().rows("m", inputs(3, 1, 3, 2, 1), forward, 2)
    assert rows[place].ravel().tolist() == [6, 2, 6, 4, 2]
    assert forward.batches == [[3, 1], [2]]


def test_an_input_given_for_many_pairs_is_hashed_once():
    class Counted(np.ndarray):
        hashed = 0

        def tobytes(self, *args):
            Counted.hashed += 1
            return super().tobytes(*args)

    value = np.array([3.0]).view(Counted)
    rows, place = Shared().rows("m", [value] * 5, Doubling(), 2)
    assert (rows.tolist(), place.tolist(), Counted.hashed) == ([[6]], [0] * 5, 1)


def test_a_batch_that_was_seen_is_not_computed_again_and_another_company_is():
    shared, forward = Shared(), Doubling()
    shared.rows("m", inputs(1, 2), forward, 2)
    shared.rows("m", inputs(1, 2), forward, 2)
    assert forward.batches == [[1, 2]]
    shared.rows("m", inputs(1, 3), forward, 2)
    shared.rows("other model", inputs(1, 2), forward, 2)
    assert forward.batches == [[1, 2], [1, 3], [1, 2]]


def test_the_values_used_least_recently_go_first():
    shared, forward = Shared(kept=16), Doubling()
    for value in (1, 2, 1, 3):
        shared.rows("m", inputs(value), forward, 1)
    assert forward.batches == [[1], [2], [3]]
    for value in (1, 2):
        shared.rows("m", inputs(value), forward, 1)
    assert forward.batches == [[1], [2], [3], [2]]


def test_nothing_is_kept_where_nothing_may_be():
    shared, forward = Shared(kept=0), Doubling()
    for _ in range(2):
        rows, place = shared.rows("m", inputs(1, 1), forward, 2)
        assert rows[place].ravel().tolist() == [2, 2]
    assert forward.batches == [[1], [1]]


def test_models_stay_within_the_budget():
    shared, loaded = Shared(memory=10), []

    def use(name: str, size: int) -> str:
        return shared.model(name, size, lambda: loaded.append(name) or name)

    for name, size in (("a", 4), ("b", 4), ("a", 4), ("c", 6), ("a", 4), ("b", 4)):
        assert use(name, size) == name
        assert shared.loaded <= 10
    assert loaded == ["a", "b", "c", "b"]
    assert use("huge", 99) == "huge"
    assert shared.loaded == 99
