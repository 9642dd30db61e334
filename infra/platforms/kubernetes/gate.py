"""The gate of a sandbox: no code of others starts before the network policies of its pod are in force.

A policy takes effect up to a second after a pod starts, so a sandbox could reach everything in that second. An init
container is in the same network as the pod. It connects to the API server of the cluster, which every pod can reach
without a policy and a sandbox must not, and ends once that was refused three times in a row. A cluster that enforces no
policies never lets it end: the pod fails.
"""

from typing import Any

NAME = "network-policies"
# The services that run code of users and agents.
GUARDED = frozenset({"sandbox", "local-sandbox"})
REFUSALS = 3
DEADLINE_SECONDS = 60
# curl writes the seconds until the connection stood; 0 when it never did, by refusal or by silence. Its exit code does
# not tell a connection without an answer from none.
SCRIPT = f"""
deadline=$(($(date +%s) + {DEADLINE_SECONDS}))
refused=0
while [ "$(date +%s)" -lt "$deadline" ]; do
  connected=$(curl -sk -o /dev/null -w '%{{time_connect}}' --connect-timeout 1 --max-time 2 \\
    "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version")
  case "$connected" in
    *[1-9]*) refused=0 ;;
    0*) refused=$((refused + 1)) ;;
    *) echo "curl cannot tell whether the API server is reached" >&2; exit 1 ;;
  esac
  [ "$refused" -lt {REFUSALS} ] || exit 0
  sleep 0.2
done
echo "this pod still reaches the API server after {DEADLINE_SECONDS} s: the cluster enforces no network policies" >&2
exit 1
"""


def gate(image: Any, security: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # an Input
    """Return the init container. It runs the sandbox's own image, which has curl."""
    return {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", SCRIPT.replace("$", "$$")],
        "securityContext": security,
        "resources": {
            "requests": {"cpu": "20m", "memory": "16Mi"},
            "limits": {"cpu": "1", "memory": "64Mi"},
        },
    }
