"""Sums are exact, wrong input is named, and the article's numbers are computed and not repeated."""

import json
import re
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dify_kit.app import app, register
from dify_kit.costs import bars, prices, scenario, sums
from dify_kit.costs.scenario import Option, Scenario, Tokens
from infra.catalogue.llm_presets import PRICES
from infra.catalogue.project import ROOT

register("costs")
KIT = prices.load()
ARTICLE = str(ROOT / "docs" / "examples" / "article-costs.yaml")
COUNTS = st.integers(0, 10**13).map(Decimal)
DOLLARS = st.decimals(0, 10**6, places=4)
HOURS = st.decimals(0, 10**4, places=2)


def scenarios() -> st.SearchStrategy[Scenario]:
    """Return scenarios of every option, with everything that they can have."""
    options = st.builds(
        lambda hosting, hours, setup: {
            name: Option(option.providers, hosting, hours, setup)
            for name, option in scenario.all_options().items()
        },
        DOLLARS,
        HOURS,
        HOURS,
    )
    tokens = st.dictionaries(st.sampled_from(KIT.models), st.builds(Tokens, COUNTS, COUNTS), min_size=1)
    return st.builds(
        Scenario,
        rate=DOLLARS,
        tokens=tokens,
        options=options,
        prefer=st.sampled_from(["makers", "article"]),
        setup_months=st.integers(1, 60).map(Decimal),
    )


@settings(max_examples=40, deadline=None)
@given(scenarios())
def test_the_total_is_the_sum_of_the_parts_and_of_the_printed_lines(asked: Scenario) -> None:
    for cost in sums.costs(asked, KIT):
        assert all(line.usd == round(line.usd, 2) for line in cost.lines)
        printed = sum(Decimal(sums.money(line.usd).replace("$", "").replace(",", "")) for line in cost.lines)
        assert (cost.total is None) == bool(cost.missing)
        if cost.total is not None:
            assert cost.total == sum(cost.part(part) for part in ("tokens", "hosting", "engineering"))
            assert cost.total == printed


@settings(max_examples=40, deadline=None)
@given(scenarios(), st.integers(0, 50))
def test_tokens_cost_in_proportion(asked: Scenario, times: int) -> None:
    more = {
        model: Tokens(each.input * times, (each.output or Decimal(0)) * times)
        for model, each in asked.tokens.items()
    }
    many = Scenario(**{**vars(asked), "tokens": more})

    for one, other in zip(sums.costs(asked, KIT), sums.costs(many, KIT), strict=True):
        # Each line is rounded to a cent: half a cent for each line, `times` times, is what that changes.
        most = Decimal("0.005") * (times + 1) * sum(line.part == "tokens" for line in one.lines)
        assert abs(other.part("tokens") - one.part("tokens") * times) <= most
        assert other.part("hosting") == one.part("hosting")
        assert other.part("engineering") == one.part("engineering")


@settings(max_examples=40, deadline=None)
@given(scenarios(), COUNTS, COUNTS, DOLLARS)
def test_more_of_anything_never_costs_less(
    asked: Scenario, read: Decimal, made: Decimal, rate: Decimal
) -> None:
    model = min(asked.tokens)
    old = asked.tokens[model]
    tokens = {**asked.tokens, model: Tokens(old.input + read, (old.output or Decimal(0)) + made)}
    more = Scenario(**{**vars(asked), "tokens": tokens, "rate": (asked.rate or 0) + rate})

    for one, other in zip(sums.costs(asked, KIT), sums.costs(more, KIT), strict=True):
        assert other.part("tokens") >= one.part("tokens")
        assert other.part("engineering") >= one.part("engineering")


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.decimals(0, 1, places=3))
def test_a_share_of_input_is_the_same_as_telling_the_two_apart(count: Decimal, share: Decimal) -> None:
    options = {"openai": Option(("openai",))}
    summed = Scenario(tokens={"gpt-4.1": Tokens(count)}, options=options, input_share=share)
    apart = Scenario(tokens={"gpt-4.1": Tokens(count * share, count * (1 - share))}, options=options)

    assert sums.costs(summed, KIT)[0].total == sums.costs(apart, KIT)[0].total


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["costs", *arguments])
    assert result.exit_code == code, result.output
    return result


def asked_for(*arguments: str) -> dict[str, Any]:
    return dict(json.loads(run(*arguments, "--json").stdout))


def test_the_table_of_the_article_comes_out_of_its_inputs() -> None:
    dify, holysheep = asked_for("--scenario", ARTICLE)["options"]

    assert [dify[part] for part in ("hosting", "tokens", "engineering", "total")] == [
        "200.00",
        "80.00",
        "1600.00",
        "1880.00",
    ]
    assert [holysheep[part] for part in ("hosting", "tokens", "engineering", "total")] == [
        "0.00",
        "80.00",
        "200.00",
        "280.00",
    ]


def test_the_saving_of_the_article_comes_out_of_hosting_and_engineering() -> None:
    shown = run("--scenario", ARTICLE).stdout

    assert "85.106 %" in shown
    dify, holysheep = asked_for("--scenario", ARTICLE)["options"]
    assert dify["tokens"] == holysheep["tokens"]


def test_people_see_every_step_and_who_says_the_price() -> None:
    shown = run("--scenario", ARTICLE).stdout

    assert "10,000,000 gpt-4.1 tokens / 1,000,000 * $8.00 (openai) = $80.00" in shown
    assert "16 hours a month * $100.00 = $1,600.00" in shown
    assert "$80.00 + $200.00 + $1,600.00 = $1,880.00" in shown
    assert "openai gpt-4.1: $8.00, claimed by the article" in shown


def test_options_make_a_scenario_and_win_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "tokens: {gpt-4.1: {input: 1_000_000, output: 1_000_000}}\noptions: {dify: {hosting: 5.10}}\n"
    )

    [read] = asked_for("--scenario", str(file))["options"]
    [won] = asked_for("--scenario", str(file), "--hosting", "dify=7.25", "--tokens", "gpt-4.1=2M:0")[
        "options"
    ]

    assert (read["tokens"], read["hosting"], read["total"]) == ("10.00", "5.10", "15.10")
    assert (won["tokens"], won["hosting"], won["total"]) == ("4.00", "7.25", "11.25")


def test_every_option_is_compared_and_one_without_the_model_has_no_total() -> None:
    found = {one["option"]: one for one in asked_for("--tokens", "claude-sonnet-4.5=1M:1M")["options"]}

    assert list(found) == ["dify", "holysheep", "openai", "anthropic", "oneapi"]
    assert found["openai"]["total"] is None
    assert found["openai"]["missing"] == ["claude-sonnet-4.5"]
    assert found["anthropic"]["total"] == found["dify"]["total"] == "18.00"
    assert found["holysheep"]["total"] == "30.00"


def test_a_gateway_buys_where_it_is_told() -> None:
    found = {
        one["option"]: one
        for one in asked_for("--tokens", "gpt-4.1=1M:0", "--provider", "dify=holysheep")["options"]
    }

    assert found["dify"]["tokens"] == "8.00"
    assert found["oneapi"]["tokens"] == "2.00"


def test_the_examples_of_the_guide_work(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "costs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .+\n)+", page, re.MULTILINE)
    asked, own = (tmp_path / name for name in ("ours.yaml", "own.yaml"))
    for file, block in zip((asked, own), blocks, strict=True):
        file.write_text(textwrap.dedent(block))

    dify, oneapi, holysheep = asked_for("--scenario", str(asked), "--prices", str(own))["options"]

    assert dify["total"] == "631.83"
    assert oneapi["tokens"] == holysheep["tokens"] == "72.50"
    for command in re.findall(r"^dify-kit costs (.+)", page, re.MULTILINE):
        assert asked_for(*command.replace("--json", "").split())["options"]


def test_setting_up_is_spread_over_months() -> None:
    arguments = (
        "--tokens",
        "gpt-4.1=0:0",
        "--rate",
        "100",
        "--setup-hours",
        "dify=12",
        "--setup-months",
        "24",
    )
    found = {one["option"]: one for one in asked_for(*arguments)["options"]}

    assert found["dify"]["engineering"] == "50.00"
    assert found["oneapi"]["engineering"] == "0.00"


OWN = "prices: [{provider: openai, model: gpt-4.1, price: 3.5, source: contract, date: 2026-11-01, published: true}]"


def test_prices_of_ones_own_win(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)

    found = asked_for("--tokens", "gpt-4.1=2M", "--prices", str(file))

    [price] = [one for one in found["prices"] if one["provider"] == "openai"]
    assert {one["option"]: one["total"] for one in found["options"]}["openai"] == "7.00"
    assert (price["source"], price["date"], price["published"]) == ("contract", "2026-11-01", True)


def test_each_price_has_a_source_and_only_a_vendors_own_page_is_published() -> None:
    hosts = {
        "openai": "openai.com",
        "anthropic": "claude.com",
        "google": "google",
        "deepseek": "deepseek.com",
    }

    assert len(KIT.all) > 8
    for price in KIT.all:
        assert price.source
        if price.published:
            assert price.source.startswith("https://")
            assert hosts[price.provider] in price.source.split("/")[2]


def test_the_proxys_meter_and_this_list_do_not_disagree() -> None:
    shared = [price for price in KIT.all if price.list == "makers" and price.model in PRICES]

    assert len(shared) > 3
    for price in shared:
        metered = PRICES[price.model]
        assert (price.input, price.output) == (Decimal(str(metered.input)), Decimal(str(metered.output)))


def test_without_options_there_is_an_example_that_says_so() -> None:
    told = run()

    assert "an example" in told.stderr
    assert "example of a small team" in told.stdout
    found = {one["option"]: one for one in asked_for()["options"]}
    assert list(found) == ["dify", "holysheep", "openai", "oneapi"]
    assert all(float(one["total"]) > 0 for one in found.values())
    # Other options change it.
    changed = {one["option"]: one for one in asked_for("--hosting", "dify=1000")["options"]}
    assert Decimal(changed["dify"]["total"]) - Decimal(found["dify"]["total"]) == 1000 - 60
    assert changed["openai"] == found["openai"]


def test_amounts_are_rounded_to_cents_and_prices_are_not(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN.replace("price: 3.5", "price: 0.0755"))
    arguments = ("--tokens", "gpt-4.1=1_100_000", "--prices", str(file), "--hosting", "openai=1.005")

    shown = run(*arguments).stdout
    found = asked_for(*arguments)

    # 1.1 * 0.0755 = 0.08305, and half a cent goes up.
    assert "1,100,000 gpt-4.1 tokens / 1,000,000 * $0.0755 (openai) = $0.08" in shown
    assert "$0.08 + $1.01 + $0.00 = $1.09" in shown
    assert {one["option"]: one["total"] for one in found["options"]}["openai"] == "1.09"
    assert found["prices"][0]["input"] == "0.0755"


def test_no_tokens_in_a_scenario_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("rate: 3")

    assert "tokens: none given" in run("--scenario", str(file), code=2).stderr


def test_bars_are_in_proportion_and_name_the_parts() -> None:
    shown = run("--scenario", ARTICLE).stdout.splitlines()

    (legend,) = [line for line in shown if "██ tokens" in line]
    assert "▒▒ hosting" in legend
    assert "░░ engineering" in legend
    dify, holysheep = (line for line in shown if re.search(r"[█▒░]{3}", line))
    # Of 32 marks for $1,880: $80, $200 and $1,600; $80, $0 and $200.
    assert [dify.count(mark) for mark in "█▒░"] == [1, 4, 27]
    assert [holysheep.count(mark) for mark in "█▒░"] == [1, 0, 4]
    assert dify.endswith("  $1,880.00")
    assert holysheep.endswith("  $280.00")


@settings(max_examples=40, deadline=None)
@given(scenarios())
def test_bars_fit_a_terminal_and_add_up(asked: Scenario) -> None:
    found = sums.costs(asked, KIT)
    most = max((cost.total for cost in found if cost.total is not None), default=Decimal(0))

    for cost in found:
        if cost.total is not None:
            counts = bars.marks(cost, most)
            assert all(count >= 0 for count in counts.values())
            assert sum(counts.values()) == (round(cost.total / most * bars.WIDTH) if most else 0)
    assert len(bars.bars(found)) == len(found) + 1


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--tokens", "gpt-5000=1M"), "tokens.gpt-5000: no price is known", "--prices FILE"),
        (("--tokens", "gpt-4.1=1.5"), "--tokens gpt-4.1: 1.5 is not a whole number", "10M"),
        (("--tokens", "gpt-4.1=-1"), "--tokens gpt-4.1: -1 is not", "10M"),
        (("--tokens", "gpt-4.1=NaN"), "--tokens gpt-4.1: NaN is not", "10M"),
        (("--tokens", "gpt-4.1=1e999999999"), "--tokens gpt-4.1: 1e999999999 is not", "10M"),
        (("--tokens", "gpt-4.1=1:2:3"), "--tokens gpt-4.1: 1:2:3 has more", "INPUT:OUTPUT"),
        (("--tokens", "gpt-4.1"), "--tokens gpt-4.1: no NAME=VALUE", "gpt-4.1=10M"),
        (("--tokens", "gpt-4.1=1", "--tokens", "gpt-4.1=2"), "gpt-4.1 is there twice", "once"),
        (("--tokens", "gpt-4.1=10M"), "tokens.gpt-4.1: 10,000,000 does not tell", "--input-share"),
        (("--hosting", "azure=3"), "--hosting: azure: no such option", "holysheep"),
        (("--hosting", "dify=much"), "--hosting dify: much is not a number", "12.50"),
        (("--hosting", "dify=0.0000000001"), "--hosting dify: 0.0000000001 has more than 9", "12.50"),
        (("--tokens", "gpt-4.1=1:1", "--hours", "dify=3"), "rate: not given, but dify takes 3", "--rate"),
        (("--setup-months", "0"), "--setup-months: 0 is less than a month", "12"),
        (("--input-share", "75"), "--input-share: 75 is more than 1", "0.75"),
        (("--provider", "openai=holysheep"), "--provider openai: holysheep", "oneapi"),
        (("--prefer", "rumours"), "prefer: rumours: no such price list", "makers"),
        (("--scenario", "none"), "--scenario none: no such file", "article"),
        (("--prices", "none.yaml"), "none.yaml: No such file", "YAML file"),
    ],
)
def test_errors_name_key_value_and_fix(arguments: tuple[str, ...], message: str, hint: str) -> None:
    told = run(*arguments, code=2).stderr

    assert message in told.split("hint:")[0]
    assert hint in told.split("hint:")[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokens: {gpt-4.1: 1}\ntoken: 3", "mine.yaml.token: 3: no such key"),
        ("tokens: {gpt-4.1: 1, gpt-4.1: 2}", "the key gpt-4.1 is there twice"),
        ("tokens: {gpt-4.1: {inputs: 2}}", "tokens.gpt-4.1.inputs: 2: no such key"),
        ("tokens: [1]", "tokens: [1] is not a mapping"),
        ("tokens: {gpt-4.1: .inf}", "tokens.gpt-4.1: .inf is not a number"),
        ("tokens: {gpt-4.1: !!set {a}}", "tokens.gpt-4.1: {'a'} is not a number"),
        ("options: {}", "options: none given"),
        ("options: {dify: {hosting: true}}", "options.dify.hosting: True is not a number"),
        ("options: {azure: {}}", "options: azure: no such option"),
        ("rate: [", "not YAML"),
        ("- 1", "is not a mapping"),
        ("claims: {table: {}}", "mine.yaml.claims: {'table': {}}: no such key"),
    ],
)
def test_errors_of_a_scenario_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)

    assert message in run("--scenario", str(file), code=2).stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("price: 3.5", "price: free", "prices[0].price: free is not a number"),
        ("price: 3.5", "input: 3.5", "a price is missing or given twice"),
        ("price: 3.5", "price: 3.5, output: 3.5", "a price is missing or given twice"),
        ("published: true", "published: perhaps", "prices[0].published: perhaps is neither"),
        ("date: 2026-11-01", "date: lately", "prices[0].date: lately is not a day"),
        ("source: contract", "source: ", "prices[0].source: None is not a text"),
        ("prices: [", "prices: [1, ", "prices[0]: 1 is not a mapping"),
        ("prices:", "costs:", "costs: "),
        ("model:", "modell:", "prices[0].modell: gpt-4.1: no such key"),
    ],
)
def test_errors_of_a_price_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    assert old in OWN
    file.write_text(OWN.replace(old, new))

    assert message in run("--tokens", "gpt-4.1=1", "--prices", str(file), code=2).stderr
