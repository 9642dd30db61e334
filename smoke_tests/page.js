// The script of the page that the smoke tests open: it calls the API as any web page does, and returns as plain
// data what a script of this origin can read. Times are seconds since the call.

// Below it, a pause between two ticks is the page's usual work.
const SHORTEST_STALL = 0.0005;

const decoded = (answer) => answer.body.pipeThrough(new TextDecoderStream()).getReader();

async function call({ url, init, seconds }, take) {
  const started = performance.now();
  const now = () => (performance.now() - started) / 1000;
  // When the page was suspended, as [start, end]: pieces that arrive meanwhile seem to arrive together. Messages to
  // itself tick without a pause; a timer ticks every 4 ms at the most, longer than a short stream takes.
  const stalls = [];
  let ticked = 0;
  const tick = () => {
    const at = now();
    if (at - ticked > SHORTEST_STALL) stalls.push([ticked, at]);
    ticked = at;
  };
  const { port1: ticks, port2: ticker } = new MessageChannel();
  ticks.onmessage = () => {
    tick();
    ticker.postMessage(null);
  };
  ticker.postMessage(null);
  try {
    const answer = await fetch(url, { ...init, signal: AbortSignal.timeout(seconds * 1000) });
    const seen = { status: answer.status, kind: answer.type, headers: [...answer.headers], pieces: [], events: [] };
    if (answer.body) await take(decoded(answer), seen, now);
    tick();
    return { ...seen, stalls, seconds: now() };
  } catch (error) {
    return { error: `${error.name}: ${error.message}`, seconds: now() };
  } finally {
    ticks.close();
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
