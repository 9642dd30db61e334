// A request of the LLM proxy that could not be sent to the owner of its counts, because one takes the place of another: it
// waits until an owner answers, and is sent then. What was sent is never sent again.

// In milliseconds. Longer pauses later: each look takes some memory of the request.
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 1000;
// An owner that was there, and then was not: nginx ends a request that goes to and fro too often.
const MOST_TRIES = 4;

function pause(milliseconds) {
    return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Tell whether an owner answers before `until`.
async function found(r, next, until) {
    if (Date.now() >= until) {
        return false;
    }
    await pause(next);
    const reply = await r.subrequest('/_llm_owner');
    return reply.status === 204 || found(r, Math.min(2 * next, LONGEST_PAUSE), until);
}

async function wait(r) {
    const vars = r.variables;
    if (!vars.owner_unsent) {
        r.return(Number(vars.owner_failure));
        return;
    }
    const since = Number(vars.owner_waits_since) || Date.now(), tries = (Number(vars.owner_tries) || 0) + 1;
    vars.owner_waits_since = String(since);
    vars.owner_tries = String(tries);
    const until = tries > MOST_TRIES ? since : since + 1000 * Number(vars.owner_hold);
    if (await found(r, FIRST_PAUSE, until)) {
        r.internalRedirect('@llm_owner');
    } else {
        r.return(503);
    }
}

export default {wait};
