// What comes back from an upstream: stripped of what is not the caller's business, and measured. Its key is masked by
// sub_filter (parts/llm_upstream.conf), after this.
//
// What stands outside of functions is run for every request, and each function is made for it: those that few requests
// need are inside of another one.

import bytes from './bytes.js';
import errors from './errors.js';
import estimates from './estimates.js';
import streams from './streams.js';
import usage from './usage.js';

let mode = 'plain';         // 'plain', 'stream', 'error' or 'replaced': ours instead
let status = 0;
let replacement = null;     // [code, message] of such a page, null once it is out
let begun = false;          // the first byte that is no white space has come
let complete = false;       // and the last one
let passing = false;        // the rest passes by
let seen = 0;               // bytes of the answer
let announced = -1;         // its Content-Length
let ending = null;          // its last piece, until nginx ends it
let head = null;            // the first piece
let held = null;            // the pieces of an error
let part = null;            // a usage that is not complete yet
let edge = null;            // the last bytes of a piece
let found = null;           // [prompt_tokens, completion_tokens]
let json = null;            // what reads JSON in bytes
let stream = null;          // what makes of a stream's bytes those that go out

// --- headers -----------------------------------------------------------------------------------------------------

// Retry-After-Ms, X-Should-Retry and the type are the only values that come back, and Retry-After (http/errors.conf):
// whatever else an upstream sends stays here, since it may echo what it was sent. So does what it says beside a status.
function headers(r) {
    const out = r.headersOut;
    let coding = '', length = '', wait = '';
    status = r.status;
    for (const name in out) {
        const lower = name.toLowerCase();
        if (lower === 'content-length') {
            length = String(out[name]);
            announced = Number(length);
        } else if (lower === 'content-encoding') {
            coding = String(out[name]).toLowerCase();
        } else if (lower === 'llm_provider-retry-after') {
            wait = String(out[name]);
        } else if (lower === 'retry-after-ms' ? /^\d{1,9}$/.test(String(out[name]))
            : lower === 'x-should-retry' && /^(true|false)$/.test(String(out[name]))) {
            continue;
        }
        delete out[name];
    }
    if (status < 200 || status === 204 || status === 205 || (status < 300 && length === '0')) {
        replacement = ['upstream_empty', 'The upstream answered with nothing.'];
    } else if (coding !== '' && coding !== 'identity') {
        replacement = status < 400 ? ['upstream_coding', 'The upstream compressed its answer, although it was asked not to.']
            : errors.refusal(status);
    } else if (status === 408) {
        // To the caller it would say that its own request came too slowly. nginx cannot take it for an error page.
        status = 504;
        replacement = ['upstream_timeout', 'The upstream did not answer in time.'];
    }
    if (replacement !== null) {
        mode = 'replaced';
        if (status < 400) {
            status = 502;
            unusual().fell(r);
        }
    } else if (status >= 400) {
        mode = 'error';
        if (llm_tables.engine === 'litellm' && /^\d{1,6}$/.test(wait)) {
            out['Retry-After'] = wait;
        }
    } else if (r.variables.llm_mode) {
        mode = 'stream';
    }
    if (status >= 500 || status === 429) {
        usage.fell(r.variables.llm_upstream, status);
    }
    const type = status >= 400 ? 'application/json' : r.variables.upstream_http_content_type || '';
    out['Content-Type'] = type === 'application/json' ? type : unusual().kindOf(type);
    // Without the reason that the upstream gave.
    r.status = status;
}

// --- the body ----------------------------------------------------------------------------------------------------

function body(r, data, flags) {
    if (mode === 'replaced') {
        if (replacement !== null) {
            r.sendBuffer(Buffer.from(errors.text(status, replacement[0], replacement[1])), {last: true});
            replacement = null;
        }
        return;
    }
    seen += data.length;
    complete = flags.last;
    if (mode === 'error') {
        if (held === null) {
            held = data;
        } else if (held.length + data.length <= 65536) {
            held = Buffer.concat([held, data]);
        }
        r.sendBuffer(flags.last ? unusual().failing(seen <= 65536 ? held : Buffer.alloc(0)) : Buffer.alloc(0), flags);
        return;
    }
    if (!begun) {
        head = data;
        start(data);
    }
    if (mode === 'stream') {
        if (stream === null) {
            stream = streams(r, {look, take, takeAll});
        }
        r.sendBuffer(stream.pass(data, flags.last), flags);
        return;
    }
    look(data, complete);
    if (seen === announced && !complete) {
        // nginx ends the answer at once: head, body and end go out in one write.
        ending = data;
        return;
    }
    r.sendBuffer(ending === null ? data : ending, complete ? {last: true, flush: false} : flags);
    // What passes through here stays in memory until the request ends. Of a longer answer the rest passes by, at the pace
    // of the caller.
    if (seen > 16777216) {
        passing = true;
        r.done();
    }
}

// Whoever asked for a stream may get JSON nevertheless, whatever its type says.
function start(data) {
    let at = 0;
    while (at < data.length && (data[at] === 32 || data[at] === 10 || data[at] === 13)) {
        at++;
    }
    if (at < data.length) {
        begun = true;
        if (mode === 'stream' && (data[at] === 123 || data[at] === 91)) {
            mode = 'plain';
        }
    }
}

// What few answers need.
function unusual() {
    function kindOf(type) {
        const plain = type.split(';')[0].trim().toLowerCase();
        return plain === 'application/json' || plain === 'text/event-stream' || plain === 'text/plain' ? plain
            : 'application/octet-stream';
    }

    // Others of this model are tried first for a while.
    function fell(r) {
        ngx.shared.llm_down.set(`${r.variables.llm_upstream} ${r.variables.llm_model}`, 1);
    }

    // An error as the caller gets it: the upstream's own where it is JSON, whatever its type says.
    function failing(data) {
        const text = data.toString();
        let parsed = null;
        try {
            parsed = JSON.parse(text);
        } catch (e) {
            parsed = null;
        }
        if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed)) {
            return Buffer.from(refusal());
        }
        return llm_tables.engine === 'litellm' ? Buffer.from(upstreams(parsed)) : data;
    }

    // What the upstream said, out of what LiteLLM makes of it: how models are routed here is not the caller's business.
    function upstreams(parsed) {
        try {
            parsed.error.message = parsed.error.message.split('\n\nLiteLLM: ')[0]
                .replace(/^litellm\.\w+: (?:\w+: )*(?:\w+ - )?/, '');
        } catch (e) {
            return refusal();
        }
        return JSON.stringify({error: parsed.error});
    }

    function refusal() {
        const known = errors.refusal(status);
        return errors.text(status, known[0], known[1]);
    }

    return {failing, fell, kindOf};
}

// --- usage, wherever it stands -----------------------------------------------------------------------------------

// Inside of a text the quotes of "usage" would be escaped.
function look(data, last) {
    let end = data;
    if (part !== null) {
        // The piece before ended inside of it.
        const joined = Buffer.concat([part, data.slice(0, 4096)]);
        part = null;
        takeAll(joined);
    } else if (edge !== null) {
        const joined = Buffer.concat([edge, data.slice(0, 16)]);
        edge = null;
        if (joined.indexOf('"usage"') >= 0) {
            takeAll(Buffer.concat([joined, data.slice(16, 4096)]));
        } else if (data.length < 8) {
            // Its name may have begun even before.
            end = joined;
        }
    }
    takeAll(data);
    if (!last && part === null && end.length > 0) {
        const quote = end.lastIndexOf(34);
        if (quote >= 0 && quote > end.length - 8) {
            edge = end.slice(quote);
        }
    }
}

// The last one counts, so that the search begins at the end. Most have both numbers first, and are read by a pattern: a
// step of njs for each byte costs more. Once only: what the pattern is given and finds stays in memory.
function takeAll(data) {
    let at = data.lastIndexOf('"usage"');
    while (at >= 0) {
        let begin = at + 7;
        while (data[begin] === 58 || data[begin] === 32) {
            begin++;
        }
        const read = found === null && data[begin] === 123
            ? /^\{\s*"(prompt|completion)_tokens"\s*:\s*(\d{1,15})\s*,\s*"(?!\1)(?:prompt|completion)_tokens"\s*:\s*(\d{1,15})\s*[,}]/
                .exec(data.slice(begin, begin + 80).toString())
            : null;
        if (read !== null) {
            found = read[1] === 'prompt' ? [Number(read[2]), Number(read[3])] : [Number(read[3]), Number(read[2])];
            return;
        }
        if (data[begin] !== 110 && takeOne(data, at)) {
            return;
        }
        at = at > 0 ? data.lastIndexOf('"usage"', at - 1) : -1;
    }
}

// Whether the usage whose name begins at `at` is one, and is taken. One that is not complete is kept for the next piece.
function takeOne(data, at) {
    json = json || bytes();
    const begin = json.valueAt(data, at + 7);
    if (begin < 0 ? at + 16 <= data.length : data[begin] !== 123 && begin < data.length) {
        return false;
    }
    const end = begin < 0 || begin >= data.length ? -1 : json.closing(data, begin);
    if (end >= 0) {
        return take(data, begin, end);
    }
    if (part === null && data.length - at < 4096) {
        part = data.slice(at);
    }
    return false;
}

function take(data, begin, end) {
    json = json || bytes();
    const prompt = json.number(data, '"prompt_tokens"', begin, end);
    if (prompt >= 0) {
        found = [prompt, Math.max(0, json.number(data, '"completion_tokens"', begin, end))];
    }
    return prompt >= 0;
}

// --- what it cost ------------------------------------------------------------------------------------------------

// When a request is over, answered or cut off: the value of $llm_settled, which is always false (parts/llm_log.conf).
function settle(r) {
    try {
        count(r);
    } catch (e) {
        r.error(`llm: usage was not counted: ${e.message}`);
    }
    return '';
}

function count(r) {
    const vars = r.variables;
    const caller = vars.llm_caller, model = vars.llm_model;
    const terms = usage.settled(vars);
    const final = Number(vars.status);
    // 499: the caller left. What the upstream had begun by then is paid for.
    if (final >= 400 && final !== 499) {
        usage.add(caller, model, 'failed', 0, 0, 0, 0);
        vars.llm_counted = 'nothing';
        return;
    }
    // What an upstream says is believed within reason: a token has a byte at least, but for what is fetched by its
    // address; and a model may give more than is known of it, but not everything.
    const exact = found !== null && found[0] <= Number(terms[0]) + 2e6
        && found[1] <= Math.max(4 * Number(terms[2]), seen, 1e5);
    const guess = exact ? null : estimates({mode, begun, complete, passing, seen, head, stream});
    if (!exact && complete && guess.empty()) {
        // An error, or nothing at all, as an answer.
        usage.fell(vars.llm_upstream, 200);
        unusual().fell(r);
        usage.add(caller, model, 'failed', 0, 0, 0, 0);
        vars.llm_counted = 'nothing';
        return;
    }
    const tokens_in = exact ? found[0] : Number(terms[1]);
    const tokens_out = exact ? found[1] : guess.tokens(vars, Number(terms[2]));
    const price = llm_tables.prices[model];
    const cost = price ? (tokens_in * price.input + tokens_out * price.output) / 1e6 : 0;
    const cut = mode === 'plain' && begun && !complete && !passing;
    usage.add(caller, model, cut && !exact ? 'failed' : 'requests', tokens_in, tokens_out, cost, exact ? 0 : 1);
    vars.llm_tokens_in = String(tokens_in);
    vars.llm_tokens_out = String(tokens_out);
    vars.llm_cost = cost.toFixed(8);
    vars.llm_counted = exact ? 'exactly' : 'by estimate';
}

export default {body, headers, settle};
