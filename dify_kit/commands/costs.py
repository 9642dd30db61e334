"""The command that compares what the options cost a month."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import app
from dify_kit.costs import prices, reading, report, scenario, sums
from dify_kit.costs.scenario import Option, Scenario, Tokens
from dify_kit.errors import UsageError
from dify_kit.talk import say


@app.command()
def costs(  # noqa: PLR0917  # Typer calls it by name
    given: Annotated[
        Path | None,
        typer.Option("--scenario", metavar="FILE", help="A YAML file; the other options win over it."),
    ] = None,
    tokens: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=N", help="Tokens a month: 10M, or 7M:3M for input and output; repeatable."
        ),
    ] = None,
    hosting: Annotated[
        list[str] | None, typer.Option(metavar="OPTION=USD", help="Hosting a month; repeatable.")
    ] = None,
    hours: Annotated[
        list[str] | None, typer.Option(metavar="OPTION=H", help="Engineering hours a month; repeatable.")
    ] = None,
    setup_hours: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION=H", help="Hours to set it up, once; repeatable."),
    ] = None,
    setup_months: Annotated[
        str, typer.Option(metavar="N", help="Months to spread them over. [default: 12]")
    ] = "",
    rate: Annotated[str, typer.Option(metavar="USD", help="What an engineering hour costs.")] = "",
    provider: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION=NAME", help="Where dify or oneapi buy their tokens; repeatable."),
    ] = None,
    input_share: Annotated[str, typer.Option(metavar="0..1", help="Part of the tokens that is input.")] = "",
    prefer: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Price list to look in first: makers or article. [default: makers]"
        ),
    ] = "",
    price_file: Annotated[
        Path | None, typer.Option("--prices", metavar="FILE", help="Prices of your own, which win.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout instead of the table.")
    ] = False,
) -> None:
    """Compare what Dify, HolySheep, OpenAI, Anthropic and OneAPI cost a month, with the arithmetic."""
    asked = _start(given, tokens)
    for model, value in _pairs("--tokens", tokens):
        asked = replace(asked, tokens={**asked.tokens, model: _tokens(f"--tokens {model}", value)})
    numbers = {"hosting": hosting, "hours": hours, "setup_hours": setup_hours}
    for part, values in numbers.items():
        key = f"--{part.replace('_', '-')}"
        for name, value in _pairs(key, values):
            asked = _with(asked, key, name, **{part: reading.number(f"{key} {name}", value)})
    for name, value in _pairs("--provider", provider):
        asked = _with(asked, "--provider", name)
        option = scenario.with_provider(f"--provider {name}", name, asked.options[name], value)
        asked = replace(asked, options={**asked.options, name: option})
    if setup_months:
        asked = replace(asked, setup_months=scenario.months("--setup-months", setup_months))
    if rate:
        asked = replace(asked, rate=reading.number("--rate", rate))
    if input_share:
        asked = replace(asked, input_share=scenario.share("--input-share", input_share))
    known = prices.load(price_file)
    asked = replace(asked, prefer=prefer or asked.prefer)
    if asked.prefer not in (lists := sorted({price.list for price in known.all})):
        raise UsageError(f"prefer: {asked.prefer}: no such price list", f"one of {', '.join(lists)}")
    found = sums.costs(asked, known)
    if as_json:
        typer.echo(json.dumps(report.as_json(asked, found), indent=2))
    else:
        report.show(asked, found)


def _start(given: Path | None, tokens: Sequence[str] | None) -> Scenario:
    """Return the scenario that the options change: the file's, all options for given tokens, or the example."""
    if given:
        return scenario.load(given)
    if tokens:
        return Scenario(options=scenario.all_options())
    say("an example, as no --tokens are given; --tokens gpt-4.1=7M:3M has yours, --scenario FILE all of it")
    return scenario.load(scenario.EXAMPLE)


def _pairs(option: str, values: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    seen = set()
    for value in values or ():
        name, equals, rest = value.partition("=")
        if not name or not equals or not rest:
            raise UsageError(f"{option} {value}: no NAME=VALUE", f"for example {option} {_example(option)}")
        if name in seen:
            raise UsageError(f"{option} {value}: {name} is there twice", "give it once")
        seen.add(name)
        yield name, rest


def _example(option: str) -> str:
    return {"--tokens": "gpt-4.1=10M", "--provider": "dify=holysheep"}.get(option, "dify=16")


def _tokens(key: str, value: str) -> Tokens:
    parts = value.split(":")
    if len(parts) > 2:  # noqa: PLR2004
        raise UsageError(f"{key}: {value} has more than two parts", "N, or INPUT:OUTPUT")
    return Tokens(*(reading.tokens(key, part) for part in parts))


def _with(asked: Scenario, key: str, name: str, **changes: object) -> Scenario:
    scenario.known_option(key, name)
    option = asked.options.get(name) or Option(scenario.OPTIONS[name][1])
    return replace(asked, options={**asked.options, name: replace(option, **changes)})  # type: ignore[arg-type]
