"""The admin that claims the instance: `dify:adminEmail` and `dify:adminName`."""

from infra.catalogue import checks
from infra.settings.reader import Section


def read_admin_email(top: Section) -> str:
    """Read `dify:adminEmail`."""
    email = top.text("adminEmail")
    if not checks.EMAIL.fullmatch(email):
        top.problems.add(
            "adminEmail", email, "is not an e-mail address", "use an address such as you@example.com"
        )
    return email


def read_admin_name(top: Section) -> str:
    """Read `dify:adminName`."""
    name = top.text("adminName")
    if not name.strip():
        top.problems.add("adminName", name, "is empty", "name the admin")
    return name
