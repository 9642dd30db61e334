"""What a release's catalogue file lacks before the kit can deploy the release."""

from dataclasses import dataclass
from pathlib import Path

import pulumi

from dify_kit.releases import kit
from infra.catalogue import release_file, releases, selection
from infra.catalogue.images import images_of_the_kit
from infra.catalogue.releases import Release
from infra.catalogue.variables import problems as wrong


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What keeps a release from being deployed, what an import did not know, and what costs safety alone (`notes`)."""

    problems: tuple[str, ...] = ()
    to_look_up: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do; notes are no work."""
        return not (self.problems or self.to_look_up)


def missing(file: Path) -> Missing:
    """Return what a catalogue file lacks."""
    if found := release_file.problems(file):
        return Missing(problems=tuple(found))
    release = releases.load(file)
    unpinned = sorted(
        role for role, image in release.images.items() if not image.digest and role not in images_of_the_kit()
    )
    notes = [
        f"images.{role}: no digest, so a registry could bring another image under the tag"
        for role in unpinned
    ]
    if release.facts:
        notes.append(f"variables: read from {release.facts}, not from {release.version} itself")
    return Missing(
        problems=tuple(f"{file}: {line}" for line in _environment(release)),
        to_look_up=release.unknown,
        notes=tuple(notes),
    )


def _environment(release: Release) -> list[str]:
    """Return what is wrong with the variables that the kit would set for this release."""
    try:
        services = kit.topology(release).services
    except pulumi.RunError as problem:
        return [f"the kit cannot render it: {problem}"]
    found: dict[str, str] = {}
    readers, listed = selection.readers(complete=False), selection.release_roles()
    for name, service in services.items():
        reader = selection.variables_of(name)
        if reader not in readers or (name in listed and name not in release.services):
            continue
        known = release.variables(name)
        # The value of a generated secret is not known here: any text.
        values = {key: value or "" for key, value in service.variables.items()}
        secret = {key for key, value in service.variables.items() if value is None}
        for key, words in wrong(known, values, complete=name not in selection.partly_known()).items():
            if not (key in secret and key in known):
                found.setdefault(f"variables.{reader}.{key}", f"the kit sets it, and it {words}")
    return [f"{key}: {words}" for key, words in found.items()]
