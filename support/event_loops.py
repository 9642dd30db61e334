"""Event loops that end with their tests: Pulumi's outputs are tasks, and most tests never await them."""

import asyncio


def close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left on a loop, and close it.

    A task that has never run would otherwise end as a coroutine that was never awaited, which Python warns of.
    """
    while left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()
