"""The page of docs/guides/browser.md, as its readers would use it."""

import re
import time

from playwright.sync_api import TimeoutError as PlaywrightTimeout

from smoke_tests.pages import NETWORK_SECONDS, Page
from support.stacks import CHECKOUT

GUIDE = (CHECKOUT / "docs" / "guides" / "browser.md").read_text(encoding="utf-8")
ANSWER_MILLISECONDS = 20_000


def guides_page(api: str, key: str) -> str:
    """Return the guide's page with the two constants that it asks its readers to change."""
    (page,) = re.findall(r"```html\n(.*?)```", GUIDE, re.DOTALL)
    for name, old, new in (("api", "https://dify.example.com", api), ("key", "app-...", key)):
        line = f'const {name} = "{old}";'
        assert page.count(line) == 1
        page = page.replace(line, f'const {name} = "{new}";')
    return str(page)


def ask(page: Page, query: str, expected: str) -> None:
    """Ask the guide's page something, and wait until it shows what is expected.

    It is asked again when the browser gave the request up because interfaces of its machine changed.
    """
    until = time.monotonic() + NETWORK_SECONDS
    while True:
        page.forget()
        page.tab.fill("input[name=query]", query)
        page.tab.click("button")
        try:
            page.tab.wait_for_function(
                "wanted => document.querySelector('output').textContent.includes(wanted)",
                arg=expected,
                timeout=ANSWER_MILLISECONDS,
            )
        except PlaywrightTimeout:
            if not page.cut_off or time.monotonic() > until:
                raise
        else:
            if not page.cut_off or time.monotonic() > until:
                return
