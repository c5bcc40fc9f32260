"""The order of names, where there is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.images.order import in_order


@pytest.mark.parametrize(
    "names",
    [
        [f"{n}.png" for n in range(12)],
        [f"sd15_{n}_v2.PNG" for n in range(90, 110)],
        [f"{n:03}.jpg" for n in range(1200)],
        ["a.PNG", "b.png"],
        ["9.png", "010.png", "11.png"],
        [],
    ],
)
def test_numbers_count_by_their_values(names: list[str]) -> None:
    assert in_order(names[::-1]) == names


@pytest.mark.parametrize(
    "names",
    [
        ["a10.png", "a2.png", "b1.png"],
        ["1_1.png", "1_10.png", "2_2.png", "10_1.png"],
        ["2.png", "10.jpg"],
        ["01.png", "1.png", "2.png", "10.png"],
        ["B.png", "a.png"],
    ],
)
def test_two_orders_are_none(names: list[str]) -> None:
    assert in_order(names) is None


@given(st.lists(st.text(alphabet="a1\u0663_0", max_size=6), unique=True, max_size=6))
def test_any_order_is_one_of_all_the_names(names: list[str]) -> None:
    found = in_order(names)
    assert found is None or sorted(found) == sorted(names)
    assert found == in_order(names[::-1])
