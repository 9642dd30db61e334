"""Send one request with each of some tokens and print how long each took, in milliseconds, as JSON.

Runs in the load's container: `first_calls.py PORT HOST PATH FILE FIRST COUNT`. FILE has a token in each line.
"""

import http.client
import json
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Ask over one kept connection; anything but 200 ends it."""
    port, host, path, file, first, count = arguments
    chosen = Path(file).read_text(encoding="utf-8").split()[int(first) : int(first) + int(count)]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    connection.connect()
    took = []
    for token in chosen:
        began = time.perf_counter()
        connection.request("GET", path, headers={"Host": host, "Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        took.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            sys.exit(f"{answer.status} for a token that is right")
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1:])
