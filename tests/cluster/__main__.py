"""The command line of the test cluster: `python -m tests.cluster up|down|load|programs`."""

import argparse
import sys

from dify_kit.errors import KitError
from dify_kit.talk import fail, say
from tests.cluster import images, lifecycle, programs
from tests.cluster.plan import NODE_PORTS, check_name, make


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description="A Kubernetes cluster for tests."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "start a cluster, or complete it, and print how to use it"),
        ("down", "remove a cluster and everything of it"),
        ("load", "copy images of the local engine to the nodes"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("cluster", help="the cluster's name")
        if name == "load":
            one.add_argument("image", nargs="+", help="name of an image in the engine")
    commands.add_parser("programs", help="build the programs and images that are not cached")
    given = parser.parse_args(arguments)
    try:
        if given.command == "up":
            _show(lifecycle.up(given.cluster))
        elif given.command == "down":
            lifecycle.down(given.cluster)
            say(f"test cluster {given.cluster} is removed")
        elif given.command == "load":
            _load(given.cluster, given.image)
        else:
            programs.ensure_programs()
            images.ensure_images()
    except KitError as problem:
        fail(problem)
        return problem.exit_code
    return 0


def _show(cluster: lifecycle.Cluster) -> None:
    say(f"    nodes       {', '.join(f'{one.name} ({one.address})' for one in cluster.plan.nodes)}")
    say(f"    node ports  {', '.join(f'{one} at 127.0.0.1:{cluster.port(one)}' for one in NODE_PORTS)}")
    say(f"    kubectl     {programs.HYPERKUBE.directory / 'kubectl'}")
    say(f"    load        .venv/bin/python -m tests.cluster load {cluster.name} IMAGE...")
    say(f"    remove      {make('cluster-down', cluster.name)}")
    say("    export KUBECONFIG:")
    print(cluster.kubeconfig)  # noqa: T201  # data goes to stdout


def _load(name: str, wanted: list[str]) -> None:
    cluster = lifecycle.existing(check_name(name))
    if cluster is None:
        raise KitError(f"there is no test cluster {name}", f"`{make('cluster', name)}` starts it")
    for node, loaded in cluster.load(*wanted).items():
        say(f"✓ {node}: {', '.join(loaded) or 'has all of them'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
