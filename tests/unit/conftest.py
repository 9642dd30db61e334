"""Every unit test has its own event loop and its own Pulumi configuration."""

import asyncio
from collections.abc import Iterator

import pulumi
import pytest


@pytest.fixture(autouse=True)
def _fresh_pulumi() -> Iterator[None]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    pulumi.runtime.set_all_config({}, [])
    asyncio.set_event_loop(None)
    loop.close()
