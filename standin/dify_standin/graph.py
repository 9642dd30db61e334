"""The order in which an app's nodes run."""

from typing import Any


class Graph:
    """An app's nodes, and which comes after which."""

    def __init__(self, graph: dict[str, Any]) -> None:
        self._nodes = {node["id"]: node for node in graph["nodes"]}
        self._edges = {
            (edge["source"], edge.get("sourceHandle", "source")): edge["target"] for edge in graph["edges"]
        }
        self.start = next((node["id"] for node in graph["nodes"] if node["data"]["type"] == "start"), None)

    def following(self, node: str, handle: str) -> str | None:
        """Return the node to which a handle of a node leads, None at an end."""
        return self._edges.get((node, handle))

    def path(self, first: str | None) -> list[dict[str, Any]]:
        """Return the nodes that run one after the other from this one on, up to one that branches, or an end."""
        current = first
        path: list[dict[str, Any]] = []
        while current is not None and len(path) <= len(self._nodes):
            path.append(self._nodes[current])
            current = self.following(current, "source")
        return path
