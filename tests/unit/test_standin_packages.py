"""Packages of plugins: what the stand-in's daemon reads of them, what it refuses, and its own in the catalogue."""

import pytest
from dify_standin import credentials, marketplace, packages
from dify_standin.errors import ApiError

from tests.contract.model_recordings import NEW, Cut, differences, readable, steps
from tests.unit.standin_upstream import archive, compatible, openai

PINNED = f"langgenius/openai_api_compatible:0.0.63@{'a' * 64}"
MANIFEST = "version: {version}\nauthor: {author}\nname: x\nlabel: X\nplugins: {{}}\n"


def test_another_file_of_the_same_version_is_another_package() -> None:
    plain, signed = packages.read(compatible("0.0.63")), packages.read(compatible("0.0.63", signed=True))

    assert plain.identifier.startswith("langgenius/openai_api_compatible:0.0.63@")
    assert plain.identifier != signed.identifier
    assert (plain.signed, signed.signed) == (False, True)
    assert packages.checksum_of(plain.identifier) != packages.checksum_of(signed.identifier)


def test_models_of_a_provider_are_read_with_their_prices() -> None:
    found = packages.read(openai("1.0.4")).declaration["model"]["models"]

    assert {one["model"]: one["pricing"]["output"] for one in found} == {"gpt-4.1": "8.00", "gpt-5.6": "8.00"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no zip", "not a valid difypkg file"),
        (archive({}, signed=False), "has no manifest.yaml"),
        (
            archive({"manifest.yaml": "name: x"}, signed=False),
            "manifest.yaml or a file that it names is invalid",
        ),
        (archive({"manifest.yaml": "- x"}, signed=False), "is invalid"),
        (
            archive({"manifest.yaml": MANIFEST.format(version="x", author="y")}, signed=False),
            "version must match",
        ),
        (
            archive({"manifest.yaml": MANIFEST.format(version="1.0.0", author="../y")}, signed=False),
            "author and name must match",
        ),
    ],
)
def test_what_is_no_package_is_refused_with_its_reason(content: bytes, told: str) -> None:
    with pytest.raises(packages.PackageError, match=told):
        packages.read(content)


def test_the_catalogue_has_one_package_under_any_identifier_of_its_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = marketplace.latest("langgenius/openai_api_compatible")
    pinned = marketplace.find(PINNED)

    assert own is not None
    assert packages.read(marketplace.package()).identifier == own
    assert pinned is not None
    assert (pinned.identifier, pinned.declaration["version"]) == (PINNED, "0.0.63")
    assert marketplace.find(own) is not None
    assert marketplace.find(PINNED.replace("openai_api_compatible", "other")) is None
    assert marketplace.find("langgenius/openai_api_compatible:0.0.63@none") is None
    monkeypatch.setenv("DIFY_STANDIN_MARKETPLACE", "false")
    assert marketplace.find(own) is None
    assert marketplace.latest("langgenius/openai_api_compatible") is None


def test_a_credential_has_the_fields_of_its_type_of_model() -> None:
    form = marketplace.offered().declaration["model"]["model_credential_schema"]
    given = {"endpoint_url": "http://x/v1", "context_size": "8191", "max_chunks": "16", "colour": "red"}

    assert credentials.checked(form, given, "text-embedding") == {
        "endpoint_url": "http://x/v1",
        "context_size": "8191",
        "max_chunks": "16",
        "encoding_format": "not_set",
        "vision_support": "no_support",
    }
    with pytest.raises(ApiError, match="Variable context_size is required"):
        credentials.checked(form, {"endpoint_url": "http://x/v1"}, "llm")


@pytest.mark.parametrize(
    ("secret", "shown"),
    [("", ""), ("short", "*" * 20), ("dkp_0123456789", f"dkp_01{'*' * 12}89")],
)
def test_secrets_are_masked(secret: str, shown: str) -> None:
    assert credentials.mask(secret) == shown


def test_a_cut_recording_keeps_what_is_complete() -> None:
    found = readable('{"a": [{"b": "x, }", "c": 1}, {"b": "half...cut')

    assert isinstance(found, Cut)
    assert found.value == {"a": [{"b": "x, }", "c": 1}]}
    whole = {"a": [{"b": "x, }", "c": 1}, {"b": "whole"}], "d": 2}
    assert differences(found, whole) == []
    assert differences(found, {"a": []}) != []


@pytest.mark.parametrize(
    "received",
    [
        {"result": "success", "error": "x"},
        {"result": "error", "error": None},
        {"result": "success"},
        {"result": "success", "error": None, "more": 1},
        [],
    ],
)
def test_any_other_answer_shows(received: object) -> None:
    recorded = {"result": "success", "error": None}

    assert differences(recorded, recorded) == []
    assert differences(recorded, received) != []


def test_most_recorded_answers_are_compared_whole() -> None:
    """What is cut, is cut by its recording: lists of plugins and providers."""
    cut = [step for step in steps(NEW) if isinstance(step.answer, Cut)]

    assert len(cut) < 40
    assert all(step.answer.value for step in cut)
