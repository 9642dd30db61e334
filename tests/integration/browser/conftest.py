"""A browser of the tests' own."""

from collections.abc import Iterator

import pytest

from dify_kit.chromium import find_browser
from smoke_tests.client import Patience
from smoke_tests.cors import Policy
from smoke_tests.masking import Redactor
from smoke_tests.pages import Pages, browsing
from support.stacks import Stack

APP = "https://app.example.com"


@pytest.fixture(scope="module")
def pages(stack: Stack) -> Iterator[Pages]:
    """A running browser that opens pages against the main stack."""
    policy = Policy(group="v1", url=stack.url, allowed=(APP,), own=stack.url)
    patience = Patience(seconds=60)
    with browsing(find_browser(), policy, redact=Redactor(), patience=patience, verify=True) as pages:
        yield pages
