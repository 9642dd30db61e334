"""The pictures of the pages: what they are taken of, and what is missing before they can be."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from playwright.sync_api import Error as PlaywrightError

from dify_kit.chromium import BrowserError
from dify_kit.errors import KitError
from docsite import pictures
from docsite.build import pages as site_pages
from docsite.pictures import FOLDER, pages
from infra import hints

OUTPUTS = {"consoleUrl": "https://dify.example.com"}


def test_report_and_console_of_the_stack_are_taken(tmp_path: Path) -> None:
    report = tmp_path / "smoke-staging.html"
    report.write_text("<!doctype html>")

    assert pages("staging", OUTPUTS, tmp_path) == {
        "report": report.as_uri(),
        "console": "https://dify.example.com",
    }


def test_without_a_report_the_command_that_writes_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"smoke-staging\.html: does not exist") as problem:
        pages("staging", OUTPUTS, tmp_path)

    assert hints.make("smoke", "staging") in problem.value.hint


def test_without_a_browser_the_command_that_installs_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise BrowserError("there is no Chromium on this machine")

    monkeypatch.setattr(pictures, "find_browser", none)

    with (
        pytest.raises(KitError, match="there is no Chromium on this machine") as problem,
        pictures.chromium(),
    ):
        pass

    assert hints.kit("setup", "--browser") in problem.value.hint

    # Nor one that cannot be started.
    monkeypatch.setattr(pictures, "find_browser", lambda: SimpleNamespace(path=str(tmp_path / "none")))
    with pytest.raises(KitError, match="no browser for the pictures"), pictures.chromium():
        pass


def test_a_page_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    class Refused:
        def new_page(self, **_: object) -> None:
            raise PlaywrightError("net::ERR_CONNECTION_REFUSED at https://dify.example.com\nCall log: ...")

    with pytest.raises(
        KitError, match=r"no picture of https://dify\.example\.com: net::ERR_CONNECTION_REFUSED"
    ):
        pictures.take(cast("Any", Refused()), OUTPUTS["consoleUrl"], tmp_path / "x.png")


def test_a_measurement_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BENCH_SECONDS", 0.1)

    with pytest.raises(KitError, match="did not end") as problem:
        pictures.draw_chart("staging", tmp_path / "chart.svg")

    assert hints.kit("bench", stack="staging") in problem.value.hint


def test_every_picture_is_on_a_page() -> None:
    text = "".join(page.text for page in site_pages())

    assert {file.name for file in FOLDER.glob("*")} == {"report.png", "console.png", "chart.svg"}
    assert [file.name for file in FOLDER.glob("*") if f"pictures/{file.name})" not in text] == []
