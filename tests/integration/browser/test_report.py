"""The report of the smoke tests in a browser: readable in light and dark, on a phone and on a screen."""

from collections.abc import Iterator
from pathlib import Path

import playwright.sync_api as playwright
import pytest

from dify_kit.chromium import find_browser
from smoke_tests.advice import Advice
from smoke_tests.reporting import as_page
from smoke_tests.results import FAILED, PASSED, Result, Results, by_reason

pytestmark = pytest.mark.browser

# The contrast that WCAG 2.2 requires of text, level AA.
CONTRAST = 4.5
# The contrast of every text with what is behind it, the lowest one first.
MEASURE = """() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const read = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const found = read(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const found = [];
  for (const one of document.body.querySelectorAll("*")) {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const [a, b] = [light(read(getComputedStyle(one).color)), light(behind(one))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, and texts without a space to break a line at."""
    run = Results(
        target="stack dev: http://localhost:8080, Dify 1.17.1", browser="Chromium 1 (/usr/bin/chromium)"
    )
    advice = Advice(wrong="it is open", cause="a proxy", fix="close it")
    long = "x" * 300
    for number in range(3):
        name = f"test_{'long_' * 20}[{number}]"
        run.add(
            name,
            Result(name=name, group="CORS", outcome=FAILED, message=long, detail=long, advice=advice),
        )
    run.add("test_ok", Result(name="test_ok", group="TLS", outcome=PASSED, seconds=1.25))
    run.left_out = by_reason({f"the setting is {long}": [("OAuth", "test_a"), ("LLM", "test_b")]})
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(as_page(run), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    """A running browser."""
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=find_browser().path, chromium_sandbox=False)
        yield running
        running.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_readable(browser: playwright.Browser, report: Path, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(report.as_uri())
    contrasts = page.evaluate(MEASURE)
    sizes = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    context.close()

    assert requested == [report.as_uri()]
    assert sizes[0] <= sizes[1], "the page is wider than the window"
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    assert len(contrasts) > 40
    assert [one for one in contrasts if one[0] < CONTRAST] == []
