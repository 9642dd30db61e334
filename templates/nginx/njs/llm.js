// The LLM proxy: who calls, which upstream, what comes back. Tables come from llm/tables.json and llm/secrets.json.
//
// Each request has its own globals, and gets new ones when it goes on to another location. What has to last longer lies
// in nginx's variables ($llm_*).

import crypto from 'crypto';
import errors from './errors.js';
import meter from './meter.js';
import edits from './edits.js';
import request from './request.js';
import usage from './usage.js';

// Names come from callers: "constructor" is none of a table's, since what njs preloads has no prototype.
//
// What stands outside of functions is run for every request, and each function is made for it: those that few requests
// need are inside of another one.

// --- who calls ---------------------------------------------------------------------------------------------------

// The value of $llm_denied, which is asked for before limits and body: the status of a call without a good proxy key.
// In the location itself: a subrequest of auth_request would be another engine, and another location for the limits.
function denied(r) {
    const given = /^bearer +(dkp_[A-Za-z0-9_-]{43})$/i.exec(r.headersIn.Authorization || '');
    if (given === null) {
        return '401';
    }
    const hash = crypto.createHash('sha256').update(given[1]).digest('hex');
    const known = llm_secrets.callers[hash];
    if (known === undefined || (known.expires !== 0 && known.expires * 1000 <= Date.now())) {
        return '401';
    }
    if (known.internal && r.variables.server_port !== llm_tables.internal_port) {
        return '403';
    }
    const vars = r.variables;
    vars.llm_caller = known.name;
    vars.llm_class = String(known.class);
    vars.llm_budget = String(known.budget);
    vars.llm_models = known.models;
    return '';
}

// The gateway's answer about a token of OAuth.
function token(r) {
    // Subjects of other issuers may be anything; counters, limits and metrics have them as they are, or by a hash.
    function named(client) {
        const plain = /^[A-Za-z0-9._@/-]{1,100}$/.test(client);
        return 'client:' + (plain ? client : crypto.createHash('sha256').update(client).digest('hex').slice(0, 32));
    }

    const told = r.headersOut;
    if (r.status === 401) {
        // nginx passes its challenge on; ours beside it would be one too many.
        r.variables.llm_challenge = 'told';
        return;
    }
    if (r.status !== 200) {
        return;
    }
    const scopes = (told['X-Auth-Scopes'] || '').split(' ');
    if (!scopes.includes(llm_tables.scope)) {
        r.variables.llm_challenge = 'scope';
        r.status = 403;
        return;
    }
    r.variables.llm_caller = named(`${told['X-Auth-Tenant']}/${told['X-Auth-Sub']}`);
    r.variables.llm_class = String(llm_tables.class);
    r.variables.llm_budget = String(llm_tables.budget);
    r.variables.llm_models = '';
}

function may(r, model) {
    return r.variables.llm_models === '' || r.variables.llm_models.split(' ').includes(model);
}

// --- which models there are --------------------------------------------------------------------------------------

function models(r) {
    function described(model) {
        return {id: model, object: 'model', created: 0, owned_by: 'dify-kit'};
    }

    if (r.method !== 'GET' && r.method !== 'HEAD') {
        errors.send(r, 405, 'method_not_allowed', 'Use GET.');
        return;
    }
    const served = Object.keys(llm_tables.chat).concat(Object.keys(llm_tables.embeddings));
    const seen = served.filter((model) => may(r, model));
    const one = r.uri.slice('/llm/v1/models'.length + 1);
    r.headersOut['Content-Type'] = 'application/json';
    if (one === '') {
        r.return(200, JSON.stringify({object: 'list', data: seen.map(described)}));
    } else if (seen.includes(one)) {
        r.return(200, JSON.stringify(described(one)));
    } else {
        errors.send(r, 404, 'model_not_found', 'The model is not served here.', 'model');
    }
}

// --- which upstream ----------------------------------------------------------------------------------------------

function chat(r) {
    route(r, 'chat', llm_tables.chat);
}

function embeddings(r) {
    route(r, 'embeddings', llm_tables.embeddings);
}

function route(r, kind, table) {
    if (!r.variables.llm_caller) {
        // The location lets nobody as far as this.
        r.return(401);
        return;
    }
    if (r.method !== 'POST') {
        errors.send(r, 405, 'method_not_allowed', 'Use POST.');
        return;
    }
    const asked = request.usual(r);
    if (asked !== null) {
        admit(r, kind, table, asked);
        return;
    }
    carefully(r, (found) => admit(r, kind, table, found));
}

// Go on with what a request asks for that is not of the usual kind, or refuse it.
function carefully(r, go) {
    function refuse(problem) {
        if (typeof problem.code === 'string' && problem.param !== undefined) {
            errors.send(r, 400, problem.code, problem.message, problem.param);
            return;
        }
        r.error(`llm: a request could not be read: ${problem.message}`);
        errors.send(r, 500, 'internal_error', 'The edge failed.');
    }

    let reading;
    try {
        reading = request.careful(r);
    } catch (e) {
        refuse(e);
        return;
    }
    reading.then(go).catch(refuse);
}

function admit(r, kind, table, asked) {
    const vars = r.variables, model = asked.model;
    if (model === '') {
        errors.send(r, 400, 'model_required', 'The body names no model.', 'model');
        return;
    }
    const targets = table[model];
    if (targets === undefined) {
        errors.send(r, 404, 'model_not_found', 'The model is not served here.', 'model');
        return;
    }
    if (vars.llm_models !== '' && !may(r, model)) {
        errors.send(r, 403, 'model_not_allowed', 'This key may not use the model.', 'model');
        return;
    }
    // What it may cost at most: by then a longer prompt would be refused by every model.
    const input = Math.min(Math.ceil(asked.size / 4), 1e6);
    const output = kind === 'chat' ? asked.answers * (asked.limit || llm_tables.longest[model]) : 0;
    const budget = Number(vars.llm_budget);
    let dollars = 0, hour = '';
    if (budget > 0) {
        const spent = usage.spent(vars.llm_caller);
        if (spent === null) {
            errors.send(r, 503, 'usage_not_counted',
                'The counters have no room for another caller, so the budget of this key cannot be kept.');
            return;
        }
        if (spent >= budget) {
            errors.send(r, 429, 'budget_exceeded', 'The budget of this month is spent.', null, true);
            return;
        }
        const price = llm_tables.prices[model];
        dollars = price ? (input * price.input + output * price.output) / 1e6 : 0;
        const reserved = usage.reserve(vars.llm_caller, dollars);
        hour = reserved[0];
        if (spent + reserved[1] >= budget) {
            usage.release(vars.llm_caller, dollars, hour);
            r.headersOut['Retry-After'] = '5';
            errors.send(r, 429, 'budget_reserved',
                'The rest of the budget of this month is reserved for requests that are under way. '
                + 'A smaller max_tokens reserves less.');
            return;
        }
    }
    vars.llm_terms = `${asked.size} ${input} ${output} ${dollars} ${hour}`;
    vars.llm_kind = kind;
    vars.llm_model = model;
    // A stream tells its usage only when it is asked to. A caller that did not ask is not shown it.
    const hides = kind === 'chat' && asked.stream && !asked.shows;
    if (kind === 'chat' && asked.stream) {
        vars.llm_mode = hides ? 'hide' : 'show';
    }
    if (asked.file) {
        vars.llm_rest = edits.edits().prepared(asked, targets, model, hides);
    }
    send(r, kind, targets, targets.length > 1 ? first(targets, model) : 0, asked);
}

// The first target that was not found to answer with nothing a moment ago; else the first.
function first(targets, model) {
    for (let index = 0; index < targets.length; index++) {
        if (!ngx.shared.llm_down.has(`${targets[index].upstream} ${model}`)) {
            return index;
        }
    }
    return 0;
}

// `asked` is null for a body in a file.
function send(r, kind, targets, index, asked) {
    const vars = r.variables, target = targets[index], last = index + 1 === targets.length;
    let place = '';
    if (asked === null || asked.file) {
        place = '_file';
        edits.edits().beginning(vars, target.model);
    } else {
        const name = target.model === asked.model ? '' : target.model;
        const asks = asked.stream && kind === 'chat' && !asked.shows;
        if (name !== '' || asks) {
            vars.llm_edited = '1';
            vars.llm_body = edits.edits().edited(r, asked, name, asks);
        } else if (index > 0) {
            // The target before this one may have another name for the model.
            vars.llm_edited = '';
        }
    }
    if (!last) {
        vars.llm_next = String(index + 1);
    }
    vars.llm_upstream = target.upstream;
    vars.llm_key = llm_secrets.keys[target.upstream];
    // Behind LiteLLM, any upstream may tell its own key.
    if (llm_secrets.hidden !== '') {
        llm_secrets.hidden.split(' ').forEach((key, number) => {
            vars[`llm_hidden_${number}`] = key;
        });
    }
    r.internalRedirect(`@llm_${target.upstream}_${kind}${place}${last ? '_last' : ''}`);
}

// Count that an upstream failed, and return its status, nginx's own (502, 504) where none came.
function fell(r, then) {
    const statuses = (r.variables.upstream_status || '').split(/[,:] */);
    const status = Number(statuses[statuses.length - 1]);
    r.warn(`llm: upstream ${r.variables.llm_upstream} failed with ${status}${then}`);
    usage.fell(r.variables.llm_upstream, status);
    return status;
}

function next(r) {
    const vars = r.variables;
    fell(r, ', trying the next');
    const kind = vars.llm_kind, index = Number(vars.llm_next);
    const targets = llm_tables[kind][vars.llm_model];
    if (vars.llm_rest) {
        send(r, kind, targets, index, null);
        return;
    }
    const asked = request.usual(r);
    if (asked !== null) {
        send(r, kind, targets, index, asked);
        return;
    }
    carefully(r, (found) => send(r, kind, targets, index, found));
}

// The caller's rate is used up, which shows before the upstream is asked.
function refused(r) {
    if (r.variables.limit_req_status !== 'REJECTED') {
        // An upstream has this status, too.
        failed(r);
        return;
    }
    usage.settled(r.variables);
    r.return(429);
}

function failed(r) {
    const status = fell(r, '');
    if (status === 401 || status === 403) {
        // The caller's own credential is fine.
        errors.send(r, 502, 'upstream_denied', "The upstream refuses the server's key.", null, true);
    } else if (status === 504 || status === 524) {
        errors.send(r, 504, 'upstream_timeout', 'The upstream did not answer in time.');
    } else if (status === 503) {
        errors.send(r, 503, 'upstream_unavailable', 'The upstream is not available now.');
    } else {
        errors.send(r, 502, 'upstream_failed', 'The upstream cannot be reached, or failed.');
    }
}

export default {
    body: meter.body,
    chat,
    denied,
    embeddings,
    failed,
    headers: meter.headers,
    models,
    next,
    refused,
    settle: meter.settle,
    token,
};
