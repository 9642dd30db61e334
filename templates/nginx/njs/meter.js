// What comes back from an upstream: stripped of what is not the caller's business, and measured. Its key is masked by
// sub_filter (parts/llm_upstream.conf), after this.
//
// What stands outside of functions is run for every request.

import errors from './errors.js';
import usage from './usage.js';

const NOTHING = Buffer.alloc(0);

let mode = 'plain';         // 'plain', 'stream', 'error' or 'replaced': ours instead
let status = 0;
let replacement = null;     // [code, message] of such a page
let replaced = false;       // it is out
let asked = true;           // whether the caller is shown usage
let begun = false;          // the first byte that is no white space has come
let complete = false;       // and the last one
let dropped = false;        // the blank line behind an event that is not shown comes next
let line = '';              // a line of which a part is out: 'data', or 'other'
let held = NOTHING;         // a line that is not complete, and may be for nobody
let head = NOTHING;         // the first piece
let part = NOTHING;         // a usage that is not complete yet
let edge = null;            // the last bytes of a piece
let seen = 0;               // bytes of the answer
let written = 0;            // bytes of a stream's content
let events = 0;             // a stream's events with content
let quiet = -1;             // seconds before the first of them
let found = null;           // [prompt_tokens, completion_tokens]
let stream = null;          // what makes of a stream's bytes those that go out
let passing = false;        // the rest passes by

// --- headers -----------------------------------------------------------------------------------------------------

// The only values that come back, but for the type, and Retry-After (http/errors.conf): whatever else an upstream sends stays here, since it may echo what it
// was sent. So does what it says beside a status.
function obeyed(name, value) {
    return name === 'retry-after-ms' ? /^\d{1,9}$/.test(value)
        : name === 'x-should-retry' && (value === 'true' || value === 'false');
}

function kindOf(type) {
    if (type === 'application/json') {
        return type;
    }
    const plain = type.split(';')[0].trim().toLowerCase();
    return plain === 'application/json' || plain === 'text/event-stream' || plain === 'text/plain' ? plain
        : 'application/octet-stream';
}

function headers(r) {
    const out = r.headersOut;
    let coding = '', length = '', wait = '';
    status = r.status;
    for (const name in out) {
        const lower = name.toLowerCase();
        if (lower === 'content-length') {
            length = String(out[name]);
        } else if (lower === 'content-encoding') {
            coding = String(out[name]).toLowerCase();
        } else if (lower === 'llm_provider-retry-after') {
            wait = String(out[name]);
        } else if ((lower === 'retry-after-ms' || lower === 'x-should-retry') && obeyed(lower, String(out[name]))) {
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
            fell(r);
        }
    } else if (status >= 400) {
        mode = 'error';
        if (llm_tables.engine === 'litellm' && /^\d{1,6}$/.test(wait)) {
            out['Retry-After'] = wait;
        }
    } else {
        const told = r.variables.llm_mode;
        if (told) {
            mode = 'stream';
            asked = told === 'show';
        }
    }
    if (status >= 500 || status === 429) {
        usage.fell(r.variables.llm_upstream, status);
    }
    out['Content-Type'] = status >= 400 ? 'application/json' : kindOf(r.variables.upstream_http_content_type || '');
    // Without the reason that the upstream gave.
    r.status = status;
}

// Others of this model are tried first for a while.
function fell(r) {
    ngx.shared.llm_down.set(`${r.variables.llm_upstream} ${r.variables.llm_model}`, 1);
}

// --- the body ----------------------------------------------------------------------------------------------------

function body(r, data, flags) {
    if (mode === 'replaced') {
        if (!replaced) {
            replaced = true;
            r.sendBuffer(Buffer.from(errors.text(status, replacement[0], replacement[1])), {last: true});
        }
        return;
    }
    seen += data.length;
    complete = flags.last;
    if (mode === 'error') {
        if (held.length + data.length <= 65536) {
            held = Buffer.concat([held, data]);
        }
        r.sendBuffer(flags.last ? failing(seen <= 65536 ? held : NOTHING) : NOTHING, flags);
        return;
    }
    if (!begun) {
        head = data;
        started(data);
    }
    if (mode === 'stream') {
        if (stream === null) {
            stream = streams();
        }
        r.sendBuffer(stream(r, data, flags.last), flags);
        return;
    }
    look(data);
    // Head, body and end go out together where they come together.
    r.sendBuffer(data, flags.last ? {last: true, flush: false} : flags);
    // What passes through here stays in memory until the request ends. Of a longer answer the rest passes by, at the pace
    // of the caller.
    if (seen > 16777216) {
        passing = true;
        r.done();
    }
}

// Whoever asked for a stream may get JSON nevertheless, whatever its type says.
function started(data) {
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

// Likewise, for errors.
function failing(data) {
    // An error as the caller gets it: the upstream's own where it is JSON, whatever its type says.
    function errorOf(answer) {
        const text = answer.toString();
        let parsed = null;
        try {
            parsed = JSON.parse(text);
        } catch (e) {
            parsed = null;
        }
        if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed)) {
            const refusal = errors.refusal(status);
            return Buffer.from(errors.text(status, refusal[0], refusal[1]));
        }
        return llm_tables.engine === 'litellm' ? Buffer.from(upstreams(parsed)) : answer;
    }

    // What the upstream said, out of what LiteLLM makes of it: how models are routed here is not the caller's business.
    function upstreams(parsed) {
        try {
            parsed.error.message = parsed.error.message.split('\n\nLiteLLM: ')[0]
                .replace(/^litellm\.\w+: (?:\w+: )*(?:\w+ - )?/, '');
        } catch (e) {
            const refusal = errors.refusal(status);
            return errors.text(status, refusal[0], refusal[1]);
        }
        return JSON.stringify({error: parsed.error});
    }

    return errorOf(data);
}

// --- usage, wherever it stands -----------------------------------------------------------------------------------

// Inside of a text the quotes of "usage" would be escaped.
function look(data) {
    if (part.length > 0) {
        // The piece before ended inside of it.
        const joined = Buffer.concat([part, data.slice(0, 4096)]);
        part = NOTHING;
        takeAll(joined);
    } else if (edge !== null) {
        const joined = Buffer.concat([edge, data.slice(0, 16)]);
        edge = null;
        if (joined.indexOf('"usage"') >= 0) {
            takeAll(Buffer.concat([joined, data.slice(16, 4096)]));
        }
    }
    takeAll(data);
    if (part.length === 0 && data.length > 0) {
        const quote = data.lastIndexOf(34);
        if (quote >= 0 && quote > data.length - 8) {
            edge = data.slice(quote);
        }
    }
}

function takeAll(data) {
    let at = data.indexOf('"usage"');
    while (at >= 0) {
        const begin = valueAt(data, at + 7);
        if (begin < 0 ? at + 16 > data.length : data[begin] === 123 || begin >= data.length) {
            const end = begin < 0 ? -1 : closing(data, begin);
            if (end < 0) {
                part = data.length - at < 4096 ? data.slice(at) : NOTHING;
                return;
            }
            take(data, begin, end);
        }
        at = data.indexOf('"usage"', at + 7);
    }
}

// Where the value begins whose name ends before `at`, -1 when no value follows.
function valueAt(data, at) {
    let colons = 0;
    while (data[at] === 32 || data[at] === 10 || data[at] === 13 || data[at] === 9 || (data[at] === 58 && colons === 0)) {
        colons += data[at] === 58 ? 1 : 0;
        at++;
    }
    return colons === 1 ? at : -1;
}

// The place behind the brace that closes the one at `at`, -1 where it is not there.
function closing(data, at) {
    let depth = 0, end = at;
    do {
        const c = data[end];
        if (c === 123) {
            depth++;
        } else if (c === 125) {
            depth--;
        } else if (c === 34) {
            do {
                end = data.indexOf(34, end + 1);
            } while (end >= 0 && escaped(data, end));
            if (end < 0) {
                return -1;
            }
        }
        end++;
    } while (depth > 0 && end < data.length && end - at < 4096);
    return depth === 0 ? end : -1;
}

function escaped(data, at) {
    let before = at;
    while (data[before - 1] === 92) {
        before--;
    }
    return (at - before) % 2 === 1;
}

function take(data, begin, end) {
    const prompt = number(data, '"prompt_tokens"', begin, end);
    if (prompt >= 0) {
        found = [prompt, Math.max(0, number(data, '"completion_tokens"', begin, end))];
    }
}

// The number that follows a name, -1 when none does. In the bytes: making text of them is the expensive part.
function number(data, name, begin, end) {
    const at = data.indexOf(name, begin);
    if (at < 0 || at >= end) {
        return -1;
    }
    let place = valueAt(data, at + name.length), value = 0;
    if (place < 0 || data[place] < 48 || data[place] > 57) {
        return -1;
    }
    while (data[place] >= 48 && data[place] <= 57) {
        value = 10 * value + data[place++] - 48;
    }
    return value;
}

// --- streams -----------------------------------------------------------------------------------------------------

// njs frees nothing before a request ends, and a stream may have ten thousand events: what each of them goes through
// works on the bytes, and makes neither text nor objects of them. A byte waits for the next one only where the line that
// it is in may be usage that the caller did not ask for.

// Made for streams only: functions are made for each request as well. Returns the bytes that go out for some that came.
function streams() {
    function streamed(r, data, last) {
        // The first is the end of "reasoning_content" as well.
        const before = events;
        measure(data, 'content"');
        measure(data, '"reasoning"');
        measure(data, '"refusal"');
        measure(data, '"arguments"');
        if (before === 0 && events > 0) {
            quiet = Number(r.variables.request_time);
        }
        if (asked) {
            look(data);
            return data;
        }
        return hidden(data, last);
    }

    // Count the texts that go by this name. Inside of a text its quotes would be escaped.
    function measure(data, name) {
        let at = data.indexOf(name);
        while (at >= 0) {
            let end = valueAt(data, at + name.length);
            if (end >= 0 && data[end] === 34) {
                const begin = end + 1;
                do {
                    end = data.indexOf(34, end + 1);
                } while (end >= 0 && escaped(data, end));
                const stop = end < 0 ? data.length : end;
                written += stop - begin;
                events += stop > begin ? 1 : 0;
                if (end < 0) {
                    return;
                }
            }
            at = data.indexOf(name, Math.max(end, at + 1));
        }
    }

    // The bytes as a caller is to see them who did not ask for usage.
    function hidden(data, last) {
        if (held.length > 0) {
            data = Buffer.concat([held, data]);
            held = NOTHING;
        }
        const end = data[data.length - 1];
        if (line === '' && !dropped && (end === 10 || end === 13) && !tellsUsage(data, 0, data.length)) {
            return data;
        }
        return lines(data, last);
    }

    // Say whether there is more than "usage": null, which all events but one have where usage was asked for. The caller gets
    // spaces instead, which JSON allows there.
    function tellsUsage(data, from, to) {
        let told = false;
        let at = data.indexOf('"usage"', from);
        while (at >= 0 && at < to) {
            const begin = valueAt(data, at + 7);
            if (begin >= 0 && data[begin] === 123) {
                told = true;
            } else if (begin >= 0 && data[begin] === 110) {
                blank(data, from, at, begin + 4);
            }
            at = data.indexOf('"usage"', at + 7);
        }
        return told;
    }

    function blank(data, from, begin, end) {
        let first = begin - 1;
        while (first > from && data[first] === 32) {
            first--;
        }
        if (first < from || data[first] !== 44) {
            first = begin;
            while (data[end] === 32) {
                end++;
            }
            if (data[end] === 44) {
                end++;
            }
        }
        data.fill(32, first, end);
    }

    function lineEnd(data, from) {
        const feed = data.indexOf(10, from), back = data.indexOf(13, from);
        if (back < 0 || (feed >= 0 && feed < back)) {
            return feed < 0 ? -1 : feed + 1;
        }
        return data[back + 1] === 10 ? back + 2 : back + 1;
    }

    function lines(data, last) {
        const pieces = [];
        let from = 0;
        while (from < data.length) {
            let end = lineEnd(data, from);
            const whole = end >= 0 || last;
            if (end < 0) {
                end = data.length;
            }
            const empty = data[from] === 10 || data[from] === 13;
            if (dropped && whole && empty) {
                dropped = false;
            } else if (line === 'other' || (line === '' && !isData(data, from, end))) {
                pieces.push(data.slice(from, end));
                line = whole ? '' : 'other';
                dropped = false;
            } else {
                const stop = event(data, from, end, whole);
                pieces.push(data.slice(from, stop));
                line = whole ? '' : stop > from ? 'data' : line;
                if (!whole && stop < end) {
                    held = Buffer.from(data.slice(stop, end));
                }
            }
            from = end;
        }
        return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
    }

    // Whether a line holds JSON, or may do so once it is complete.
    function isData(data, from, end) {
        const name = 'data:';
        let at = 0;
        while (at < 5 && from + at < end) {
            if (data[from + at] !== name.charCodeAt(at)) {
                return false;
            }
            at++;
        }
        at += from;
        while (at < end && data[at] === 32) {
            at++;
        }
        return at >= end || data[at] === 123;
    }

    // How far a line with JSON, or a part of one, can go out. Usage is taken out of it.
    function event(data, from, end, whole) {
        if (whole) {
            const at = data.indexOf('"usage"', from);
            if (at < 0 || at >= end || !tellsUsage(data, from, end)) {
                return end;
            }
            if (line !== 'data' && !chooses(data, from, end)) {
                // It is about nothing else.
                takeAll(data.slice(from, end));
                dropped = true;
                return from;
            }
            conceal(data, from, end);
            return end;
        }
        if (end - from > 1048576) {
            return end;
        }
        if (line !== 'data' && !chooses(data, from, end)) {
            return from;
        }
        // It is no usage by itself, but may have some further on, and a comma before that.
        const last = conceal(data, from, end);
        if (last >= 0) {
            return last;
        }
        let stop = end;
        for (let at = end - 1; at >= from && at > end - 16; at--) {
            if (data[at] === 44) {
                stop = at;
                break;
            }
        }
        return stop;
    }

    // Whether an event has a choice: one that is about usage alone has none.
    function chooses(data, from, end) {
        const at = data.indexOf('"choices"', from);
        if (at < 0 || at >= end) {
            return false;
        }
        let begin = valueAt(data, at + 9);
        if (begin < 0 || begin >= end || data[begin] !== 91) {
            return false;
        }
        begin++;
        while (data[begin] === 32) {
            begin++;
        }
        return begin < end && data[begin] !== 93;
    }

    // Take the usages of a line, and put spaces in their place. Where one is not complete, return the place of its comma.
    function conceal(data, from, end) {
        let at = data.indexOf('"usage"', from);
        while (at >= 0 && at < end) {
            const begin = valueAt(data, at + 7);
            const object = begin >= 0 && begin < end && data[begin] === 123;
            const stop = object ? closing(data, begin) : begin >= 0 && data[begin] === 110 ? begin + 4 : begin;
            let comma = at - 1;
            while (comma > from && data[comma] === 32) {
                comma--;
            }
            const after = comma >= from && data[comma] === 44;
            // Without a comma before it, the one behind it goes.
            if (stop < 0 || stop > end || begin >= end || (stop === end && !after)) {
                return after ? comma : at;
            }
            if (object) {
                take(data, begin, stop);
            }
            if (stop > begin) {
                blank(data, from, at, stop);
            }
            at = data.indexOf('"usage"', at + 7);
        }
        return -1;
    }

    return streamed;
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
    // Bytes of the request, tokens of it and of its answer at most, and what was reserved, and when.
    const terms = vars.llm_terms.split(' ');
    if (terms[4] !== '') {
        usage.release(caller, Number(terms[3]), terms[4]);
    }
    const final = Number(vars.status);
    // 499: the caller left. What the upstream had begun by then is paid for.
    if (final >= 400 && final !== 499) {
        usage.add(caller, model, 'failed', 0, 0, 0, 0);
        vars.llm_counted = 'nothing';
        return;
    }
    const exact = found !== null && plausible(terms);
    const guess = exact ? null : uncounted();
    if (!exact && complete && guess.empty()) {
        // An error, or nothing at all, as an answer.
        usage.fell(vars.llm_upstream, 200);
        fell(r);
        usage.add(caller, model, 'failed', 0, 0, 0, 0);
        vars.llm_counted = 'nothing';
        return;
    }
    const tokens_in = exact ? found[0] : Number(terms[1]);
    const tokens_out = exact ? found[1] : guess.estimate(vars, Number(terms[2]));
    const price = llm_tables.prices[model];
    const cost = price ? (tokens_in * price.input + tokens_out * price.output) / 1e6 : 0;
    const cut = mode === 'plain' && begun && !complete && !passing;
    usage.add(caller, model, cut && !exact ? 'failed' : 'requests', tokens_in, tokens_out, cost, exact ? 0 : 1);
    vars.llm_tokens_in = String(tokens_in);
    vars.llm_tokens_out = String(tokens_out);
    vars.llm_cost = cost.toFixed(8);
    vars.llm_counted = exact ? 'exactly' : 'by estimate';
}

// What an upstream says is believed within reason: a token has a byte at least, but for what is fetched by its address;
// and a model may give more than is known of it, but not everything.
function plausible(terms) {
    return found[0] <= Number(terms[0]) + 2e6 && found[1] <= Math.max(4 * Number(terms[2]), seen, 1e5);
}

// Likewise, for answers that nobody counted.
function uncounted() {
    // Whether an answer that came with 200 is none.
    function empty() {
        if (mode === 'stream') {
            return events === 0 && (!begun || head.indexOf('"error"') >= 0);
        }
        if (!begun) {
            return true;
        }
        if (seen !== head.length || seen > 65536 || head.indexOf('"error"') < 0) {
            return false;
        }
        try {
            const answer = JSON.parse(head.toString());
            return Boolean(answer.error) && !answer.choices && !answer.data;
        } catch (e) {
            return false;
        }
    }

    // Tokens of an answer whose upstream did not count them, at most `most`.
    function estimate(vars, most) {
        if (vars.llm_kind !== 'chat') {
            return 0;
        }
        if (!begun && !complete) {
            // Nobody knows how far the upstream is, and it may go on to the end.
            return most;
        }
        const bytes = Math.max(seen, Number(vars.body_bytes_sent));
        let tokens = mode === 'stream' ? Math.max(events, Math.ceil(written / 4)) : Math.ceil(bytes / 4);
        if (!complete && !passing) {
            // A model may have thought in silence. The first second is the network's, and the question's.
            const seconds = quiet >= 0 ? quiet : Number(vars.request_time);
            tokens += Math.ceil(Math.max(0, seconds - 1) * 200);
        }
        return Math.min(tokens, Math.max(most, 1));
    }

    return {empty, estimate};
}

export default {body, headers, settle};
