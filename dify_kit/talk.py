"""Messages go to stderr; stdout carries data only.

Colour follows the terminal and ``NO_COLOR`` (rich reads both).
"""

from dify_kit.errors import KitError


def _print(text: str, style: str = "") -> None:
    from rich.console import Console  # noqa: PLC0415  # `--help` needs neither
    from rich.text import Text  # noqa: PLC0415

    # A console per message: tests and callers may have replaced sys.stderr since the last one.
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(text, style=style))


def say(text: str) -> None:
    """Print a line of plain talk."""
    _print(text)


def step(text: str) -> None:
    """Print the heading of a step."""
    _print(f"==> {text}", "bold")


def warn(text: str) -> None:
    """Print something that deserves attention but stops nothing."""
    _print(f"warning: {text}", "yellow")


def fail(error: KitError) -> None:
    """Print why a command stopped, then what to do about it."""
    _print(f"error: {error.message}", "bold red")
    if error.hint:
        _print(f"hint: {error.hint}", "cyan")
