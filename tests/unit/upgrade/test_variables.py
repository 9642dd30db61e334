"""What becomes of `dify:extraEnv` with another release."""

from dify_kit.upgrade.variables import Moved, moved
from infra.catalogue.releases import RELEASES

OLD, NEW = RELEASES["1.14.2"], RELEASES["1.17.1"]


def test_a_renamed_variable_gets_its_new_name_and_the_new_spelling_of_its_value() -> None:
    [found] = moved({"api": {"EDITION": "SELF_HOSTED", "LOG_LEVEL": "DEBUG"}}, OLD, NEW)

    assert found == Moved(service="api", name="EDITION", renamed="DEPLOYMENT_EDITION", value="COMMUNITY")
    assert found.text("1.17.1") == "extraEnv.api.EDITION becomes DEPLOYMENT_EDITION, as Dify 1.17.1 calls it"


def test_a_value_that_both_spell_alike_stays() -> None:
    [found] = moved({"api": {"EDITION": "CLOUD"}}, OLD, NEW)

    assert (found.renamed, found.value) == ("DEPLOYMENT_EDITION", "CLOUD")


def test_the_new_name_wins_where_both_are_set() -> None:
    [found] = moved({"worker": {"EDITION": "SELF_HOSTED", "DEPLOYMENT_EDITION": "COMMUNITY"}}, OLD, NEW)

    assert found.kept
    assert "which is set already" in found.text("1.17.1")


def test_a_variable_that_the_new_release_does_not_read_is_named() -> None:
    gone = sorted(set(OLD.variables("api")) - set(NEW.variables("api")) - {"EDITION"})
    assert gone

    found = list(moved({"api": dict.fromkeys(gone, "secret-value")}, OLD, NEW))

    assert [(one.name, one.renamed) for one in found] == [(name, "") for name in gone]
    assert all(
        "is removed" in one.text("1.17.1") and "secret-value" not in one.text("1.17.1") for one in found
    )


def test_names_of_services_in_the_spelling_of_compose_are_understood() -> None:
    [found] = moved({"worker_beat": {"EDITION": "SELF_HOSTED"}}, OLD, NEW)

    assert (found.service, found.renamed) == ("worker_beat", "DEPLOYMENT_EDITION")


def test_variables_of_the_process_of_the_stand_in_and_of_partly_known_servers_stay() -> None:
    extra = {
        "api": {"PYTHONUNBUFFERED": "1", "DIFY_STANDIN_SLOW": "1"},
        "db-postgres": {"POSTGRES_INITDB_ARGS": "--data-checksums"},
        "weaviate": {"SOMETHING_OF_WEAVIATE": "1"},
    }

    assert list(moved(extra, OLD, NEW)) == []


def test_what_is_no_object_is_left_to_the_reader_of_settings() -> None:
    assert list(moved({"api": "EDITION=SELF_HOSTED"}, OLD, NEW)) == []
