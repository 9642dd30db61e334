// What comes back from an upstream: stripped of what is not the caller's business, and measured. Its key is masked by
// sub_filter (parts/llm_upstream.conf), after this.

import bytes from './bytes.js';
import errors from './errors.js';
import estimates from './estimates.js';
import streams from './streams.js';
import terms from './terms.js';
import usage from './usage.js';

// Made for the location of an upstream: functions are made for each request.
function meter() {
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
    let place = 0;              // behind a number that was read
    let json = null;            // what reads JSON in bytes
    let stream = null;          // what makes of a stream's bytes those that go out

    // --- headers -------------------------------------------------------------------------------------------------

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
            usage().fell(r.variables.llm_upstream, status);
        }
        const type = status >= 400 ? 'application/json' : r.variables.upstream_http_content_type || '';
        out['Content-Type'] = type === 'application/json' ? type : unusual().kindOf(type);
        // Without the reason that the upstream gave.
        r.status = status;
    }

    // --- the body ------------------------------------------------------------------------------------------------

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
        const whole = complete || seen === announced;
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
        look(data, whole);
        if (whole && !complete) {
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

    // --- usage, wherever it stands -------------------------------------------------------------------------------

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
        if (data.length === 0 || (last && mode === 'plain' && takeQuickly(data))) {
            return;
        }
        takeAll(data);
        if (!last && part === null && end.length > 0) {
            const quote = end.lastIndexOf(34);
            if (quote >= 0 && quote > end.length - 8) {
                edge = end.slice(quote);
            }
        }
    }

    // The last one counts, so that the search begins at the end.
    function takeAll(data) {
        let at = data.lastIndexOf('"usage"');
        while (at >= 0) {
            let begin = at + 7;
            while (data[begin] === 58 || data[begin] === 32) {
                begin++;
            }
            // Once only: what a pattern is given and finds stays in memory.
            const read = found === null && data[begin] === 123
                ? /^\{\s*"(prompt|completion)_tokens"\s*:\s*(\d{1,15})\s*,\s*"(?!\1)(?:prompt|completion)_tokens"\s*:\s*(\d{1,15})\s*[,}]/
                    .exec(data.toString('utf8', begin, begin + 80))
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

    // The same for the end of what most upstreams write, without a space: the object that has "usage" for its name is opened by one of
    // the last braces, and both numbers come first. njs compares at each place for a name, and looks a byte up at once.
    // False where the last usage may be written in another way.
    function takeQuickly(data) {
        let brace = data.length;
        for (let left = 4; left > 0; left--) {
            brace = data.lastIndexOf(123, brace - 1);
            if (brace < 9 || data[brace - 1] < 33 || data[brace - 2] < 33) {
                return false;
            }
            // :, and the quotes and the "g" of the name
            if (data[brace - 1] === 58 && data[brace - 2] === 34 && data[brace - 4] === 103 && data[brace - 8] === 34) {
                return data.indexOf('"usage"', brace - 8) === brace - 8 && takeNumbers(data, brace + 1);
            }
        }
        return false;
    }

    function takeNumbers(data, at) {
        const first = numberAfter(data, at, '"prompt_tokens":');
        if (first < 0 || data[place] !== 44) {
            return false;
        }
        const second = numberAfter(data, place + 1, '"completion_tokens":');
        if (second < 0 || (data[place] !== 44 && data[place] !== 125)) {
            return false;
        }
        found = [first, second];
        return true;
    }

    // The number that follows a name which begins at `at`, -1 when none does; `place` is behind it.
    function numberAfter(data, at, name) {
        let value = 0;
        const begin = at + name.length;
        place = begin;
        // The colon first: a name that is not there would be looked for up to the end.
        if (data[place - 1] !== 58 || data.indexOf(name, at) !== at) {
            return -1;
        }
        while (data[place] >= 48 && data[place] <= 57) {
            value = 10 * value + data[place++] - 48;
        }
        return place > begin && place - begin < 16 ? value : -1;
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

    // --- what it cost --------------------------------------------------------------------------------------------

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
        const vars = r.variables, counters = usage();
        const caller = vars.llm_caller, model = vars.llm_model;
        const admitted = terms.settled(caller, model, vars.llm_terms), size = admitted[0], most = admitted[1];
        const final = Number(vars.status);
        // 499: the caller left. What the upstream had begun by then is paid for.
        if (final >= 400 && final !== 499) {
            counters.add(caller, model, 'failed', 0, 0, 0, 0, '');
            vars.llm_counted = 'nothing';
            return;
        }
        // What an upstream says is believed within reason: a token has a byte at least, but for what is fetched by its
        // address; and a model may give more than is known of it, but not everything.
        const exact = found !== null && found[0] <= size + 2e6 && found[1] <= Math.max(4 * most, seen, 1e5);
        const guess = exact ? null : estimates({mode, begun, complete, passing, seen, head, stream});
        if (!exact && complete && guess.empty()) {
            // An error, or nothing at all, as an answer.
            counters.fell(vars.llm_upstream, 200);
            unusual().fell(r);
            counters.add(caller, model, 'failed', 0, 0, 0, 0, '');
            vars.llm_counted = 'nothing';
            return;
        }
        const tokens_in = exact ? found[0] : terms.input(size);
        const tokens_out = exact ? found[1] : guess.tokens(vars, most);
        const price = llm_tables.prices[model];
        const cost = price ? (tokens_in * price.input + tokens_out * price.output) / 1e6 : 0;
        const cut = mode === 'plain' && begun && !complete && !passing;
        counters.add(caller, model, cut && !exact ? 'failed' : 'requests', tokens_in, tokens_out, cost, exact ? 0 : 1,
            vars.llm_upstream);
        vars.llm_tokens_in = tokens_in;
        vars.llm_tokens_out = tokens_out;
        vars.llm_cost = cost.toFixed(8);
        vars.llm_counted = exact ? 'exactly' : 'by estimate';
    }

    return {body, headers, settle};
}

export default meter;
