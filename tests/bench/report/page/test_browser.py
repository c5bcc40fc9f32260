"""The page in a real browser: no error, no request, and every control does what it says."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report.page.render import page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    # In a container there is no sandbox to be had for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Visit:
    """A page that was opened, and all that went on in it."""

    def __init__(self, chromium: Any, path: Path, **settings: Any) -> None:
        self.context = chromium.new_context(**settings)
        self.page = self.context.new_page()
        self.told: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def close(self) -> None:
        """Nothing was told, and nothing asked for but the page itself, and what is in it."""
        assert self.told == []
        left = [url for url in self.requests[1:] if not url.startswith("data:")]
        assert left == []
        assert self.page.title() != "taken"
        self.context.close()

    def rows(self) -> list[list[str]]:
        """Texts of the browser's rows."""
        found: list[list[str]] = self.page.eval_on_selector_all(
            ".rows tbody tr", "rows => rows.map(row => [...row.cells].map(c => c.textContent))"
        )
        return found

    def wide(self) -> bool:
        """Whether the page as a whole is to be scrolled sideways."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))


@pytest.fixture
def visit(
    chromium: Any, pictured: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., Visit]]:
    """Open the page of the made-up folder."""
    path = tmp_path / "page.html"
    path.write_text(page([pictured()]), encoding="utf-8")
    opened: list[Visit] = []

    def visit(**settings: Any) -> Visit:
        opened.append(Visit(chromium, path, **settings))
        return opened[-1]

    yield visit
    for one in opened:
        one.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_its_window(visit: Callable[..., Visit], width: int, scheme: str) -> None:
    found = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert not found.wide()
    dark = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")


def test_colours_are_chosen_by_hand(visit: Callable[..., Visit]) -> None:
    found = visit(color_scheme="light")
    found.page.click("button[data-theme=dark]")
    assert found.page.get_attribute("button[data-theme=dark]", "aria-pressed") == "true"
    colour = "getComputedStyle(document.body).backgroundColor"
    assert found.page.evaluate(colour) != "rgb(255, 255, 255)"
    found.page.click("button[data-theme=light]")
    assert found.page.evaluate(colour) == "rgb(255, 255, 255)"


def test_it_is_read_without_a_script(visit: Callable[..., Visit]) -> None:
    found = visit(java_script_enabled=False)
    assert found.page.locator("h2", has_text="What was found").is_visible()
    assert found.page.locator(".grid svg").first.is_visible()
    assert found.page.locator(".none", has_text="To search and filter").is_visible()
    assert not found.page.locator(".bar").first.is_visible()


def test_pictures_are_seen(visit: Callable[..., Visit]) -> None:
    """The pixel in the middle of the first prompt's picture of DPO is that of the file."""
    found = visit()
    picture = found.page.locator(".grid figure[data-arm='1'][data-prompt='0'] .pic")
    assert middle(picture.screenshot()) == (80, 10, 5)


def middle(png: bytes) -> tuple[int, ...]:
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return pixel


def test_the_base_is_wiped_over_an_arm(visit: Callable[..., Visit]) -> None:
    found = visit()
    picture = found.page.locator(".grid figure[data-arm='1'][data-prompt='0'] .pic")
    found.page.click("button[name=base]")
    assert middle(picture.screenshot()) == (20, 10, 5)  # That of the base model.
    found.page.click("button[name=base]")
    assert middle(picture.screenshot()) == (80, 10, 5)
    found.page.focus(".bar input[name=cut]")
    found.page.keyboard.press("End")
    assert middle(picture.screenshot()) == (20, 10, 5)
    for _ in range(60):
        found.page.keyboard.press("ArrowLeft")
    assert found.page.input_value(".bar input[name=cut]") == "40"
    assert middle(picture.screenshot()) == (80, 10, 5)


def test_another_seed_shows_its_pictures_and_scores(visit: Callable[..., Visit]) -> None:
    found = visit()
    cell = found.page.locator(".grid figure[data-arm='1'][data-prompt='0']")
    before = cell.locator(".score").text_content()
    found.page.select_option(".bar select[name=seed] >> nth=0", "2")
    assert middle(cell.locator(".pic").screenshot()) == (80, 170, 5)
    assert cell.locator(".score").text_content() != before
    base = found.page.locator(".grid figure[data-arm='0'][data-prompt='0'] .pic")
    assert middle(base.screenshot()) == (20, 10, 5)


def test_a_picture_is_looked_at_by_keyboard(visit: Callable[..., Visit]) -> None:
    found = visit()
    picture = found.page.locator(".grid figure[data-arm='1'][data-prompt='1'] .pic")
    picture.focus()
    found.page.keyboard.press("Enter")
    wide = found.page.locator("dialog .wide")
    assert wide.is_visible()
    found.page.keyboard.press("End")
    assert middle(wide.screenshot()) == (20, 10, 55)
    found.page.keyboard.press("Home")
    assert middle(wide.screenshot()) == (80, 10, 55)
    assert found.page.locator("dialog tbody tr").count() == 2
    found.page.keyboard.press("Escape")
    assert found.page.locator("dialog").count() == 0
    assert picture.evaluate("picture => picture === document.activeElement")


def test_pairs_are_searched_filtered_and_sorted(visit: Callable[..., Visit]) -> None:
    found = visit()
    count = found.page.locator(".count")
    assert count.text_content() == "60 pairs"
    column = [float(row[3]) for row in found.rows()]
    assert column == sorted(column, reverse=True)
    found.page.select_option("select[name=outcome]", "loss")
    losses = int((count.text_content() or "").split()[0])
    assert all(float(row[3]) < 0 for row in found.rows())
    found.page.select_option("select[name=outcome]", "win")
    assert int((count.text_content() or "").split()[0]) == 60 - losses
    found.page.select_option("select[name=outcome]", "all")
    found.page.fill("input[name=words]", "NUMBER 1")
    assert {row[0] for row in found.rows()} == {f"prompt number {n}" for n in range(10, 20)}
    found.page.fill("input[name=words]", "no such words")
    assert count.text_content() == "No pair is like this."
    found.page.fill("input[name=words]", "<script>")
    assert count.text_content() == "6 pairs"
    found.page.select_option(".browser select[name=seed]", "1")
    assert {row[1] for row in found.rows()} == {"1"}
    assert count.text_content() == "2 pairs"


def test_pairs_are_turned_over(visit: Callable[..., Visit]) -> None:
    found = visit()
    first = found.rows()
    assert len(first) == 25
    assert found.page.is_disabled("button[name=back]")
    found.page.click("button[name=on]")
    found.page.click("button[name=on]")
    assert len(found.rows()) == 10
    assert found.page.is_disabled("button[name=on]")
    found.page.click("button[name=back]")
    found.page.click("button[name=back]")
    assert found.rows() == first


def test_rewards_that_disagree_are_told_as_the_page_tells_them(visit: Callable[..., Visit]) -> None:
    """Its script finds the same pairs as the lists, which are made without it."""
    found = visit()
    found.page.select_option("select[name=comparison]", "1")
    found.page.select_option("select[name=outcome]", "apart")
    found.page.select_option("select[name=sort]", "apart")
    rows = found.rows()
    # Less is better by the second reward: both columns are above 0 where the arm is better.
    assert all(float(row[3]) * float(row[4]) < 0 for row in rows)
    pictured = next(row for row in rows if row[2].strip() == "")
    assert pictured[0]


def test_every_control_is_reached_by_tab_and_seen(visit: Callable[..., Visit]) -> None:
    found = visit()
    wanted = found.page.eval_on_selector_all(
        "a[href], button:not(:disabled), select, input, summary, [tabindex='0']",
        "all => all.filter(one => one.checkVisibility()).length",
    )
    seen = 0
    for _ in range(wanted):
        found.page.keyboard.press("Tab")
        seen += found.page.evaluate(
            "document.activeElement !== document.body && "
            "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        )
    assert seen == wanted


def test_print_shows_what_was_found_and_no_controls(visit: Callable[..., Visit]) -> None:
    found = visit()
    found.page.emulate_media(media="print")
    assert found.page.locator("h2", has_text="What was found").is_visible()
    assert not found.page.locator(".bar").first.is_visible()
    assert not found.page.locator("nav").first.is_visible()
    assert found.page.pdf()[:4] == b"%PDF"
