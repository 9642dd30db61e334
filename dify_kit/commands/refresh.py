"""`dify-kit refresh`: compare the state with what really runs."""

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.commands.selected import Minutes, locked, require_configured
from dify_kit.engine.cli import Pulumi, require_success
from dify_kit.talk import say
from infra import hints


@app.command()
def refresh(stack: Stack = DEFAULT_STACK, verbose: Verbose = False, timeout: Minutes = 15) -> None:
    """Compare the state with what really runs and write the differences into the state. Repairs nothing."""
    with locked(stack) as files:
        require_configured(files)
        pulumi = Pulumi(files=files)
        outcome = pulumi.stream("refresh", "--yes", "--skip-preview", deadline=timeout * 60, verbose=verbose)
        require_success(outcome, f"refreshing stack {stack}", stack)
    # A resource that reports itself gone comes as a removal from the state.
    count = len({*outcome.progress.drifted, *(label for _, label in outcome.progress.changed)})
    repair = hints.kit("up", stack=stack)
    say(f"{count} resource(s) had drifted; `{repair}` repairs them" if count else "no drift")
