// The LLM proxy: who calls, which upstream, what comes back. Tables come from llm/tables.json and llm/secrets.json.
//
// Each request has its own globals, and gets new ones when it goes on to another location. What has to last longer lies
// in nginx's variables ($llm_*).

import crypto from 'crypto';
import errors from './errors.js';
import meter from './meter.js';
import request from './request.js';
import usage from './usage.js';

// Own properties only: models are named by callers, and "constructor" is none.
function entry(table, name) {
    return Object.prototype.hasOwnProperty.call(table, name) ? table[name] : undefined;
}

// --- who calls ---------------------------------------------------------------------------------------------------

const BEARER = /^bearer +(dkp_[A-Za-z0-9_-]{43})$/i;

// The value of $llm_denied, which is asked for before limits and body: the status of a call without a good proxy key.
// In the location itself: a subrequest of auth_request would be another engine, and another location for the limits.
function denied(r) {
    const given = BEARER.exec(r.headersIn.Authorization || '');
    if (given === null) {
        return '401';
    }
    const hash = crypto.createHash('sha256').update(given[1]).digest('hex');
    const known = entry(llm_secrets.callers, hash);
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

// Subjects of other issuers may be anything; counters, limits and metrics have them as they are, or by a hash.
function named(client) {
    const plain = /^[A-Za-z0-9._@/-]{1,100}$/.test(client);
    return 'client:' + (plain ? client : crypto.createHash('sha256').update(client).digest('hex').slice(0, 32));
}

function may(r, model) {
    return r.variables.llm_models === '' || r.variables.llm_models.split(' ').includes(model);
}

// --- which models there are --------------------------------------------------------------------------------------

function described(model) {
    return {id: model, object: 'model', created: 0, owned_by: 'dify-kit'};
}

function models(r) {
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
    const vars = r.variables;
    if (!vars.llm_caller) {
        // The location lets nobody as far as this.
        r.return(401);
        return;
    }
    if (r.method !== 'POST') {
        errors.send(r, 405, 'method_not_allowed', 'Use POST.');
        return;
    }
    decided(r, (asked) => admit(r, kind, table, asked));
}

// Go on with what a request asks for, or refuse it.
function decided(r, go) {
    let asked;
    try {
        asked = request.read(r);
    } catch (e) {
        refuse(r, e);
        return;
    }
    if (typeof asked.then === 'function') {
        asked.then(go).catch((e) => refuse(r, e));
        return;
    }
    go(asked);
}

function refuse(r, problem) {
    if (typeof problem.code === 'string' && problem.param !== undefined) {
        errors.send(r, 400, problem.code, problem.message, problem.param);
        return;
    }
    r.error(`llm: a request could not be read: ${problem.message}`);
    errors.send(r, 500, 'internal_error', 'The edge failed.');
}

function admit(r, kind, table, asked) {
    const vars = r.variables, model = asked.model;
    if (model === '') {
        errors.send(r, 400, 'model_required', 'The body names no model.', 'model');
        return;
    }
    const targets = entry(table, model);
    if (targets === undefined) {
        errors.send(r, 404, 'model_not_found', 'The model is not served here.', 'model');
        return;
    }
    if (!may(r, model)) {
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
        if (spent >= budget) {
            errors.send(r, 429, 'budget_exceeded', 'The budget of this month is spent.', null, true);
            return;
        }
        const price = entry(llm_tables.prices, model);
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
        const others = elsewhere(targets, model);
        const rest = request.edits().prepared(asked, others, hides);
        vars.llm_rest = JSON.stringify({size: asked.size, added: rest.added, left: rest.left, others});
    }
    send(r, asked, first(targets, model));
}

// Whether some target has another name for it. An array that njs preloads has no methods.
function elsewhere(targets, model) {
    for (let index = 0; index < targets.length; index++) {
        if (targets[index].model !== model) {
            return true;
        }
    }
    return false;
}

// The first target that was not found to answer with nothing a moment ago; else the first.
function first(targets, model) {
    for (let index = 0; index + 1 < targets.length; index++) {
        if (!ngx.shared.llm_down.has(`${targets[index].upstream} ${model}`)) {
            return index;
        }
    }
    return targets.length > 1 && !ngx.shared.llm_down.has(`${targets[targets.length - 1].upstream} ${model}`)
        ? targets.length - 1 : 0;
}

// `asked` is null for a body in a file.
function send(r, asked, index) {
    const vars = r.variables;
    const kind = vars.llm_kind, model = vars.llm_model;
    const targets = llm_tables[kind][model];
    const target = targets[index];
    let place = '';
    if (asked === null || asked.file) {
        place = '_file';
        begin(vars, target.model);
    } else {
        const name = target.model === model ? '' : target.model;
        const asks = asked.stream && kind === 'chat' && !asked.shows;
        const edits = name !== '' || asks;
        if (edits || vars.llm_edited) {
            vars.llm_edited = edits ? '1' : '';
        }
        if (edits) {
            vars.llm_body = request.edits().edited(r, asked, name, asks);
        }
    }
    vars.llm_next = String(index + 1);
    vars.llm_upstream = target.upstream;
    vars.llm_key = llm_secrets.keys[target.upstream];
    hide(r);
    r.internalRedirect(`@llm_${target.upstream}_${kind}${place}${index + 1 < targets.length ? '' : '_last'}`);
}

// What goes up before the rest of a body in a file, as the end of the last header: neither it nor anything else of the
// body is in memory then.
function begin(vars, name) {
    const rest = JSON.parse(vars.llm_rest);
    const members = [];
    if (rest.others) {
        members.push(`"model":${JSON.stringify(name)}`);
    }
    if (rest.added !== '') {
        members.push(rest.added);
    }
    const text = `{${members.join(',')}${members.length > 0 && rest.left ? ',' : ''}`;
    vars.llm_start = `application/json\r\n\r\n${text}`;
    // With the blank line that nginx ends the header by, and the end of the line before it.
    vars.llm_length = String(Buffer.from(text).length + 4 + rest.size);
}

// Behind LiteLLM, any upstream may tell its own key.
function hide(r) {
    if (llm_secrets.hidden !== '') {
        llm_secrets.hidden.split(' ').forEach((key, number) => {
            r.variables[`llm_hidden_${number}`] = key;
        });
    }
}

function next(r) {
    const status = lastStatus(r), index = Number(r.variables.llm_next);
    r.warn(`llm: upstream ${r.variables.llm_upstream} failed with ${status}, trying the next`);
    usage.fell(r.variables.llm_upstream, status);
    if (r.variables.llm_rest) {
        send(r, null, index);
        return;
    }
    decided(r, (asked) => send(r, asked, index));
}

// The status of the last upstream that was tried, nginx's own (502, 504) where none came.
function lastStatus(r) {
    const all = (r.variables.upstream_status || '').split(/[,:] */);
    return Number(all[all.length - 1]);
}

function failed(r) {
    const status = lastStatus(r);
    r.warn(`llm: upstream ${r.variables.llm_upstream} failed with ${status}`);
    usage.fell(r.variables.llm_upstream, status);
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
    settle: meter.settle,
    token,
};
