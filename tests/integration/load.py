"""Steady load by wrk, against 127.0.0.1 only and bounded in time, with every answer counted by its status."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench import images
from infra.edge.paths import DRAIN_SECONDS
from support.stacks import unique

# A bound for what hangs: a change takes minutes where the machine is busy.
MOST_SECONDS = 1200
# Later than that, an answer counts as lost. Every limit of the edge itself ends earlier, with an answer.
ANSWER_SECONDS = 60
# Between an answer and the next request of a connection: the machine has other tests to run meanwhile.
PAUSE_MILLISECONDS = 40
# The file that starts a drain takes effect within a second. A client that sends a request on each connection more often
# than that finds its connections closed before nginx reloads.
STEADY_SECONDS = DRAIN_SECONDS - 1
# Each thread counts in its own Lua state; `done` runs in another one and adds them up.
SCRIPT = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
local ffi = require("ffi")
ffi.cdef[[
typedef struct { long seconds; long nanoseconds; } moment;
int clock_gettime(int clock, moment *now);
]]
local reading = ffi.new("moment")
local function monotonic()
  ffi.C.clock_gettime(1, reading)
  return tonumber(reading.seconds) + tonumber(reading.nanoseconds) / 1e9
end
function init(args) counts = {}; bare = 0; pause = 0 end
function delay() return PAUSE end
function request()
  local now = monotonic()
  pause = math.max(pause, now - (last or now))
  last = now
  return wrk.format(METHOD, nil, HEADERS, BODY)
end
function response(status, headers, body)
  counts[status] = (counts[status] or 0) + 1
  if status == 503 then
    local limited = false
    for name, _ in pairs(headers) do limited = limited or string.lower(name) == "retry-after" end
    if not limited then bare = bare + 1 end
  end
end
function done(summary, latency, requests)
  local all, without, longest = {}, 0, 0
  for _, thread in ipairs(threads) do
    for status, number in pairs(thread:get("counts")) do all[status] = (all[status] or 0) + number end
    without = without + thread:get("bare")
    longest = math.max(longest, thread:get("pause"))
  end
  local parts = {}
  for status, number in pairs(all) do table.insert(parts, string.format('"%d":%d', status, number)) end
  local e = summary.errors
  local lost = string.format('"connect":%d,"read":%d,"write":%d,"timeout":%d', e.connect, e.read, e.write, e.timeout)
  local statuses = table.concat(parts, ",")
  local result = '\\nRESULT {"statuses":{%s},"errors":{%s},"bare503":%d,"pause":%.3f}\\n'
  io.write(string.format(result, statuses, lost, without, longest))
end
"""


@dataclass
class Counted:
    """What came back: answers by status, requests lost by cause, and 503s without Retry-After.

    `pause` is the longest time between two requests of the client (s): it is longer than `PAUSE_MILLISECONDS` where the
    server is slow to answer, or the client itself had to wait for the processor.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    bare_503: int = 0
    pause: float = 0.0
    connections: int = 0

    @property
    def total(self) -> int:
        """All answers."""
        return sum(self.statuses.values())

    def assert_none_lost(self, *, reloads: int) -> None:
        """Assert that each request was answered.

        Where the machine let the client wait for longer than a drain, it is not the steady client of the promise, and
        each reload may cost it the request that each connection sends at that moment.
        """
        if self.pause < STEADY_SECONDS:
            assert self.lost == {}, f"the client's longest pause was {self.pause:.1f} s"
        assert set(self.lost) <= {"read"}, self.lost
        assert self.lost.get("read", 0) <= self.connections * reloads, self.lost


def _quoted(text: str) -> str:
    return json.dumps(text)


@contextmanager
def steady_load(
    url: str,
    *,
    seconds: int = MOST_SECONDS,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    body: str = "{}",
    connections: int = 8,
) -> Iterator[Counted]:
    """Send requests over kept-alive connections while the block runs, and for at most `seconds`.

    A block that takes longer fails. What it yields is filled in when the load has ended.
    """
    assert url.startswith(
        ("http://localhost:", "http://127.0.0.1:", "https://localhost:", "https://127.0.0.1:")
    )
    name = unique("load")
    options = [
        "--threads 1",
        f"--connections {connections}",
        f"--duration {seconds}s",
        f"--timeout {ANSWER_SECONDS}s",
    ]
    given = "".join(f"[{_quoted(name)}] = {_quoted(value)}, " for name, value in (headers or {}).items())
    settings = f"METHOD = {_quoted(method)}\nBODY = {_quoted(body)}\nHEADERS = {{ {given} }}"
    script = f"{settings}\nPAUSE = {PAUSE_MILLISECONDS}\n{SCRIPT}"
    # On the host's network, as a client of this machine would be.
    command = ["docker", "run", "--rm", "--interactive", "--network", "host", "--name", name, images.bench()]
    command += [
        "sh",
        "-c",
        f'cat >/tmp/load.lua; exec wrk --script /tmp/load.lua {" ".join(options)} "$0"',
        url,
    ]
    load = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert load.stdin is not None
    load.stdin.write(script)
    load.stdin.close()
    load.stdin = None
    counted = Counted(connections=connections)
    try:
        yield counted
        assert load.poll() is None, f"the load ended before its block did, which took more than {seconds} s"
        # wrk tells what it saw so far.
        subprocess.run(
            ["docker", "kill", "--signal", "INT", name], check=True, capture_output=True, timeout=60
        )
        output, _ = load.communicate(timeout=2 * ANSWER_SECONDS)
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True, timeout=60)
        load.kill()
        load.wait()
    found = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
    assert found, output
    result = json.loads(found[0])
    counted.statuses = {int(status): number for status, number in result["statuses"].items()}
    counted.lost = {cause: number for cause, number in result["errors"].items() if number}
    counted.bare_503 = result["bare503"]
    counted.pause = result["pause"]
