// The LLM proxy, as nginx calls it. Tables come from llm/tables.json and llm/secrets.json.
//
// Each request has its own globals, and gets new ones when it goes on to another location. What has to last longer lies
// in nginx's variables ($llm_*).
//
// njs runs what stands outside of functions for every request, and makes each function and each export for it. That was
// a fifth of the time of a chat, so a module of the proxy exports one function, which makes the others once they are
// needed: who asks (here), which upstream (routes.js), what comes back (meter.js).

import crypto from 'crypto';
import meter from './meter.js';
import others from './others.js';
import routes from './routes.js';

let caller = null;          // of llm_secrets, in the location that asked for it
let answer = null;          // what meter.js makes

// The value of $llm_denied, which is asked for before limits and body: the status of a call without a good proxy key.
// In the location itself: a subrequest of auth_request would be another engine, and another location for the limits.
function denied(r) {
    function refuse(status, reason) {
        r.variables.llm_refusal = reason;
        return status;
    }

    const given = r.headersIn.Authorization || '';
    // As most write it. What follows need not be a key: it has to have the hash of one.
    const secret = given.length === 54 && given.startsWith('Bearer ') ? given.slice(7)
        : (/^bearer +(dkp_[A-Za-z0-9_-]{43})$/i.exec(given) || ['', ''])[1];
    if (secret === '') {
        return refuse('401', given === '' ? 'missing' : 'unknown');
    }
    const hash = crypto.createHash('sha256').update(secret).digest('hex');
    // Names come from callers: "constructor" is none of a table's, since what njs preloads has no prototype.
    const known = llm_secrets.callers[hash];
    if (known === undefined) {
        return refuse('401', 'unknown');
    }
    if (known.expires !== 0 && known.expires * 1000 <= Date.now()) {
        return refuse('401', 'expired');
    }
    const vars = r.variables;
    if (known.internal && vars.server_port !== llm_tables.internal_port) {
        return refuse('403', 'internal');
    }
    caller = known;
    vars.llm_caller = known.name;
    vars.llm_class = known.class;
    vars.llm_budget = known.budget;
    vars.llm_models = known.models;
    return '';
}

function answered() {
    answer = answer || meter();
    return answer;
}

export default {
    body: (r, data, flags) => answer.body(r, data, flags),
    chat: (r) => routes(caller).route(r, 'chat'),
    denied,
    embeddings: (r) => routes(caller).route(r, 'embeddings'),
    headers: (r) => answered().headers(r),
    // Few requests need it, and each export costs: one for all ($llm_task).
    other: (r) => others()[r.variables.llm_task](r),
    settle: (r) => answered().settle(r),
};
