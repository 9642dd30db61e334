// The bytes of a stream, as they go out and as they count.
//
// njs frees nothing before a request ends, and a stream may have ten thousand events: what each of them goes through
// works on the bytes, and makes neither text nor objects of them. A byte waits for the next one only where the line that
// it is in may be usage that the caller did not ask for.

import bytes from './bytes.js';

// Made for streams only: functions are made for each request. `usage` takes what a stream tells of it (meter.js).
function streams(r, usage) {
    const json = bytes(), nothing = Buffer.alloc(0);
    const shown = r.variables.llm_mode === 'show';  // the caller asked for usage
    let dropped = false;        // the blank line behind an event that is not shown comes next
    let line = '';              // a line of which a part is out: 'data', or 'other'
    let held = nothing;         // a line that is not complete, and may be for nobody
    let written = 0;            // bytes of content
    let events = 0;             // events with content
    let quiet = -1;             // seconds before the first of them

    // Returns the bytes that go out for some that came.
    function pass(data, last) {
        // The first is the end of "reasoning_content" as well.
        const before = events;
        measure(data, 'content"');
        measure(data, '"reasoning"');
        measure(data, '"refusal"');
        measure(data, '"arguments"');
        if (before === 0 && events > 0) {
            quiet = Number(r.variables.request_time);
        }
        if (shown) {
            usage.look(data, last);
            return data;
        }
        return hidden(data, last);
    }

    // Count the texts that go by this name. Inside of a text its quotes would be escaped.
    function measure(data, name) {
        let at = data.indexOf(name);
        while (at >= 0) {
            let end = json.valueAt(data, at + name.length);
            if (end >= 0 && data[end] === 34) {
                const begin = end + 1;
                do {
                    end = data.indexOf(34, end + 1);
                } while (end >= 0 && json.escaped(data, end));
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
            held = nothing;
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
            const begin = json.valueAt(data, at + 7);
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
                usage.takeAll(data.slice(from, end));
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
        let begin = json.valueAt(data, at + 9);
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
            const begin = json.valueAt(data, at + 7);
            const object = begin >= 0 && begin < end && data[begin] === 123;
            const stop = object ? json.closing(data, begin) : begin >= 0 && data[begin] === 110 ? begin + 4 : begin;
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
                usage.take(data, begin, stop);
            }
            if (stop > begin) {
                blank(data, from, at, stop);
            }
            at = data.indexOf('"usage"', at + 7);
        }
        return -1;
    }

    function counted() {
        return {events, written, quiet};
    }

    return {counted, pass};
}

export default streams;
