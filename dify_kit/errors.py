"""Errors that stop a command: a message for the operator, and the next step."""


class KitError(Exception):
    """The command cannot go on. Printed as ``error: <message>`` and ``hint: <hint>``, exit code 1."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(KitError):
    """The command was called wrongly, and nothing was done. Exit code 2."""

    exit_code = 2


class CancelledError(KitError):
    """The operator stopped the command. Exit code 130, as a shell reports SIGINT."""

    exit_code = 130
