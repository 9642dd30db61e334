"""Signing keys: made, rotated with an overlap, checked when they are read."""

from typing import Any

import pytest

from dify_gateway import jose, keys
from support.gateway import documents
from tests.unit.gateway.world import World

NOW = 1_800_000_000
DAY = 86_400


def kids(document: dict[str, Any]) -> list[str]:
    return [key["kid"] for key in document["keys"]]


def test_a_new_document_can_sign() -> None:
    document = keys.new_document(NOW)

    [key] = keys.read_document(document)

    assert key.secret
    assert keys.signing_key([key], NOW) is key
    assert len(key.kid) == 43


def test_rotation_puts_a_new_key_in_front_and_takes_the_old_ones_private_part() -> None:
    document = keys.new_document(NOW)

    rotated = keys.rotate(document, NOW + 10)

    new, old = rotated["keys"]
    assert old["kid"] == document["keys"][0]["kid"]
    assert ("d" in new, "d" in old) == (True, False)
    assert (old["retired_at"], new["use_from"]) == (NOW + 10, NOW + 10)
    assert "retired_at" not in document["keys"][0]
    assert keys.signing_key(keys.read_document(rotated), NOW + 10).kid == new["kid"]


def test_a_key_that_starts_later_leaves_the_old_one_signing_until_then() -> None:
    document = keys.new_document(NOW)

    rotated = keys.rotate(document, NOW + 10, lead_seconds=60)

    read = keys.read_document(rotated)
    assert [keys.signing_key(read, moment).kid for moment in (NOW + 10, NOW + 69, NOW + 70)] == [
        kids(document)[0],
        kids(document)[0],
        rotated["keys"][0]["kid"],
    ]
    # The next rotation takes its private part.
    assert "d" not in keys.rotate(rotated, NOW + 200)["keys"][2]


def test_a_retired_key_stays_until_its_last_token_is_over() -> None:
    first = keys.new_document(NOW)
    second = keys.rotate(first, NOW + 100)

    just_before = keys.rotate(second, NOW + 100 + DAY - 1)
    just_after = keys.rotate(second, NOW + 100 + DAY)

    assert kids(first)[0] in kids(just_before)
    assert kids(first)[0] not in kids(just_after)
    assert len(just_after["keys"]) == 2


def test_overlap_may_be_shorter() -> None:
    second = keys.rotate(keys.new_document(NOW), NOW + 100)

    assert len(keys.rotate(second, NOW + 701, overlap_seconds=600)["keys"]) == 2


def test_public_set_has_all_keys_and_no_private_part() -> None:
    rotated = keys.rotate(keys.new_document(NOW), NOW + 1, lead_seconds=60)

    public = keys.public_set(keys.read_document(rotated))

    assert [key["kid"] for key in public["keys"]] == kids(rotated)
    assert all(set(key) == set(keys.PUBLIC_MEMBERS) for key in public["keys"])


def test_no_token_fails_over_rotations(world: World) -> None:
    before = world.issued()
    files = documents()
    for number in range(3):
        files["keys.json"] = keys.rotate(files["keys.json"])
        assert world.switch(str(number + 2), files)

        issued = world.issued()
        assert jose.parse(issued).header["kid"] == files["keys.json"]["keys"][0]["kid"]
        assert world.verify(f"Bearer {before}").status == 200
        assert world.verify(f"Bearer {issued}").status == 200


def test_a_dropped_key_verifies_nothing(world: World) -> None:
    before = world.issued()
    world.switch("2", {**documents(), "keys.json": keys.new_document()})

    assert world.verify(f"Bearer {before}").status == 401


def broken(**changes: Any) -> dict[str, Any]:
    document = keys.new_document(NOW)
    entry = {name: value for name, value in {**document["keys"][0], **changes}.items() if value != "gone"}
    return {"keys": [entry]}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], r'must be \{"keys"'),
        ({}, r'must be \{"keys"'),
        ({"keys": [], "more": 1}, r'must be \{"keys"'),
        ({"keys": []}, "no key can sign"),
        ({"keys": ["x"]}, r"keys\[0\] must be a JWK object"),
        (broken(d="gone"), "no key can sign"),
        (broken(retired_at=NOW), "no key can sign"),
        (broken(kty="RSA"), r"keys\[0\]\.kty must be EC"),
        (broken(crv="P-384"), r"keys\[0\]\.crv must be P-256"),
        (broken(alg="HS256"), r"keys\[0\]\.alg must be ES256"),
        (broken(use="enc"), r"keys\[0\]\.use must be sig"),
        (broken(kid=""), r"keys\[0\]\.kid must be a text"),
        (broken(kid=7), r"keys\[0\]\.kid must be a text"),
        (broken(created_at="gone"), r"keys\[0\]\.created_at must be a whole number"),
        (broken(use_from="soon"), r"keys\[0\]\.use_from must be a whole number"),
        (broken(use_from=True), r"keys\[0\]\.use_from must be a whole number"),
        (broken(retired_at="x"), r"keys\[0\]\.retired_at must be a whole number"),
        (broken(x="AAAA"), r"keys\[0\] is not a usable P-256 key"),
        (broken(x=7), r"keys\[0\] is not a usable P-256 key"),
        (broken(x="gone"), r"keys\[0\] is not a usable P-256 key"),
        (broken(comment="mine"), r"keys\[0\] has unknown members comment"),
    ],
)
def test_documents_that_cannot_be_used(document: Any, named: str) -> None:
    with pytest.raises(keys.KeyDocumentError, match=named):
        keys.read_document(document)


def test_a_private_part_of_another_key() -> None:
    other = keys.generate_key(NOW)["d"]

    with pytest.raises(keys.KeyDocumentError, match=r"keys\[0\]") as problem:
        keys.read_document(broken(d=other))

    assert other not in str(problem.value)


def test_the_same_kid_twice() -> None:
    document = keys.new_document(NOW)

    with pytest.raises(keys.KeyDocumentError, match="same kid"):
        keys.read_document({"keys": document["keys"] * 2})


def test_rotation_refuses_a_broken_document() -> None:
    with pytest.raises(keys.KeyDocumentError):
        keys.rotate({"keys": []}, NOW)
