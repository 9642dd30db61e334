// The script of the page that the smoke tests open: it calls the API as any web page does, and returns as plain
// data what a script of this origin can read. Times are seconds since the call.

const decoded = (answer) => answer.body.pipeThrough(new TextDecoderStream()).getReader();

async function call({ url, init, seconds }, take) {
  const started = performance.now();
  const now = () => (performance.now() - started) / 1000;
  // The longest time that the page was suspended: pieces that arrive meanwhile seem to arrive at once.
  let ticked = 0;
  let stalled = 0;
  const tick = () => {
    stalled = Math.max(stalled, now() - ticked);
    ticked = now();
  };
  const ticking = setInterval(tick, 1);
  try {
    const answer = await fetch(url, { ...init, signal: AbortSignal.timeout(seconds * 1000) });
    const seen = { status: answer.status, kind: answer.type, headers: [...answer.headers], pieces: [], events: [] };
    if (answer.body) await take(decoded(answer), seen, now);
    tick();
    return { ...seen, stalled, seconds: now() };
  } catch (error) {
    return { error: `${error.name}: ${error.message}`, seconds: now() };
  } finally {
    clearInterval(ticking);
  }
}

// Every piece of the body, with its time of arrival.
window.read = (request) =>
  call(request, async (reader, seen, now) => {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      seen.pieces.push([now(), piece.value]);
    }
  });

// Reads events as EventSource does, which can neither POST nor send a key: an event ends at a blank line.
window.listen = (request) =>
  call(request, async (reader, seen, now) => {
    let rest = "";
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      const blocks = (rest + piece.value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length) seen.events.push([now(), data.map((line) => line.slice(5).trimStart()).join("\n")]);
      }
    }
  });
