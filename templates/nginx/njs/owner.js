// Waits until the owner of the LLM proxy's counts answers, because one takes the place of another.

// In milliseconds. Longer pauses later: each look takes some memory of the request.
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 1000;

function pause(milliseconds) {
    return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Tell whether an owner answers before `until`.
async function found(r, next, until) {
    if (Date.now() >= until) {
        return false;
    }
    await pause(next);
    const reply = await r.subrequest('/ready');
    return reply.status === 204 || found(r, Math.min(2 * next, LONGEST_PAUSE), until);
}

// For parts/owner.conf, which sends the request again for the first of the two statuses.
async function wait(r) {
    const until = Date.now() + 1000 * Number(r.variables.owner_hold);
    const there = await found(r, FIRST_PAUSE, until);
    r.return(there ? Number(r.variables.owner_found) : 503);
}

export default {wait};
