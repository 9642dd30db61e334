// What a request asks for, read out of the bytes that go up. Whatever an upstream's parser may read in another way is
// refused: a member twice, in another case, with an escape in its name, or in JSON that only some parsers take.
//
// nginx's own patterns ($llm_read, $llm_strings: infra/edge/llm_request.py) read most bodies; what is here reads the others, and
// says what is wrong. A body in a file is read in pieces, so that it takes no memory.

import fs from 'fs';

// What stands outside of functions is run for every request: there is nothing that only some of them need.

// --- what was asked for ------------------------------------------------------------------------------------------

// {model, answers, size}, and where the body says so: `stream`, `shows`: the caller is shown usage, `limit`: tokens of an answer
// at most. Null for a body that is not of the usual kind.
function usual(r) {
    const told = r.variables.llm_read;
    if (!told) {
        return null;
    }
    const size = Number(r.variables.content_length) || r.rawVariables.request_body.length;
    // Most name a model, and nothing else that is decided on.
    if (told.endsWith('||||||')) {
        return {model: told.slice(0, -6), answers: 1, size};
    }
    const parts = told.split('|');
    return {
        model: parts[0],
        stream: parts[1] === 'true',
        options: parts[2],
        shows: parts[2].indexOf('true') > 0,
        limit: most(parts[3], parts[4]),
        answers: most(parts[5], parts[6]) || 1,
        size,
    };
}

function most(one, other) {
    return Math.max(Number(one) || 0, Number(other) || 0);
}

// A promise of the same for bodies of another kind, with `file`, empty for one in memory, and `members`. Throws a problem.
// Everything that only these need is inside: functions are made for each request as well.
function careful(r) {
    function problem(code, message, param) {
        return {code, message, param: param || null};
    }

    function broken(place, what) {
        return problem('invalid_json', `The body is not valid JSON: ${what} at byte ${place}.`);
    }

    let pattern = null;

    function unusual() {
        const file = r.variables.request_body_file || '';
        const source = file === '' ? inMemory() : inFile(file);
        return new Promise((resolve, reject) => {
            const advance = scanner(source);
            // njs loses what functions of an async function share when that waits: hence not as one.
            function go() {
                try {
                    const found = advance();
                    if (found === null) {
                        // Others have their turn.
                        setTimeout(go, 0);
                        return;
                    }
                    const told = asked(found, source, file);
                    source.close();
                    resolve(told);
                } catch (e) {
                    source.close();
                    reject(e);
                }
            }
            go();
        });
    }

    function inMemory() {
        const data = r.requestBuffer;
        if (data === undefined || data.length === 0) {
            throw problem('invalid_json', 'The body is not valid JSON: it is empty.');
        }
        if (r.variables.llm_strings !== '1') {
            throw problem('invalid_json', 'The body is not valid JSON: it is not UTF-8, or has a string that JSON does not allow.');
        }
        return {
            data,
            end: data.length,
            // It is all there.
            more: null,
            text: (begin, end) => data.slice(begin, end).toString(),
            close: () => undefined,
        };
    }

    function inFile(name) {
        const PIECE = 262144;
        const descriptor = fs.openSync(name, 'r+');
        const data = Buffer.alloc(PIECE);
        let place = 0;
        const source = {data, end: 0};
        // Keep what begins at `from`, and fill up behind it.
        source.more = (from) => {
            data.copy(data, 0, from, source.end);
            source.end -= from;
            const got = fs.readSync(descriptor, data, source.end, PIECE - source.end, place);
            place += got;
            source.end += got;
            return got;
        };
        source.text = (begin, end) => {
            const part = Buffer.alloc(end - begin);
            fs.readSync(descriptor, part, 0, end - begin, begin);
            return part.toString();
        };
        source.close = () => fs.closeSync(descriptor);
        return source;
    }

    function asked(found, source, file) {
        const texts = {};
        Object.keys(found.members).forEach((name) => {
            const member = found.members[name];
            if (member.end - member.begin > longest()) {
                throw problem('invalid_value', `The value of "${name}" is longer than any that has a meaning.`, name);
            }
            texts[name] = source.text(member.begin, member.end);
        });
        const counts = {};
        let model = '';
        Object.keys(texts).forEach((name) => {
            const text = texts[name], sort = llm_tables.decided[name];
            if (sort === 'model') {
                const value = text[0] === '"' ? JSON.parse(text) : '';
                model = value;
            } else if (sort === 'boolean' && !/^(true|false|null)$/.test(text)) {
                throw problem('invalid_value', `"${name}" is true, false or null.`, name);
            } else if (sort === 'count') {
                if (!/^(0|[1-9]\d{0,8}|null)$/.test(text)) {
                    throw problem('invalid_value', `"${name}" is a whole number of at most nine digits, or null.`, name);
                }
                counts[name] = text;
            } else if (sort === 'options' && text !== 'null' && text[0] !== '{') {
                throw problem('invalid_value', `"${name}" is an object or null.`, name);
            }
        });
        const options = texts.stream_options || '';
        const stream = texts.stream === 'true';
        const shown = stream && options[0] === '{' ? shows(options) : {shows: false, place: null};
        return {
            model,
            stream,
            options,
            shows: shown.shows,
            place: shown.place,
            limit: most(counts.max_tokens, counts.max_completion_tokens),
            answers: most(counts.n, counts.best_of) || 1,
            size: found.size,
            file,
            members: found.members,
            count: found.count,
            begin: found.begin,
            last: found.last,
        };
    }

    // Whether the options ask for usage, and where they say so; `place` is null where they do not.
    function shows(text) {
        const option = llm_tables.option;
        const value = JSON.parse(text);
        const names = Object.keys(value);
        const alike = names.filter((name) => name !== option && canonical(name).replace(/_/g, '') === option.replace(/_/g, ''));
        const at = text.indexOf(`"${option}"`);
        const twice = at >= 0 && text.indexOf(`"${option}"`, at + 1) >= 0;
        if (alike.length > 0 || twice || text.indexOf('\\') >= 0) {
            throw problem('ambiguous_member', `"stream_options" can be read in more than one way: "${option}" has to be there once, as it is written here.`, 'stream_options');
        }
        if (at < 0) {
            return {shows: false, place: null};
        }
        if (typeof value[option] !== 'boolean' && value[option] !== null) {
            throw problem('invalid_value', `"stream_options.${option}" is true or false.`, 'stream_options');
        }
        const found = /^\s*:\s*(true|false|null)/.exec(text.slice(at + option.length + 2));
        if (found === null) {
            throw problem('ambiguous_member', `"stream_options" has another "${option}" inside.`, 'stream_options');
        }
        const end = Buffer.from(text.slice(0, at + option.length + 2 + found[0].length)).length;
        return {shows: value[option] === true, place: [end - found[1].length, end]};
    }

    // Bytes of a name, or of a value that is decided on: these are looked at as a whole.
    function longest() {
        return 8192;
    }

    // --- names -------------------------------------------------------------------------------------------------------

    // As the most forgiving reader has it: without case, marks that do not show, and whatever follows a zero byte.
    function canonical(name) {
        return name.split('\0')[0].toUpperCase().toLowerCase().replace(/[^a-z0-9_]/g, '')
            .replace(/^_+|_+$/g, '');
    }

    // Take note of a member's name: decided members go into `members`, what can be taken for one is refused.
    function named(raw, members) {
        const plain = raw.indexOf('\\') < 0;
        let name;
        try {
            name = JSON.parse(`"${raw}"`);
        } catch (e) {
            throw problem('invalid_json', 'The body is not valid JSON: a name has characters that JSON does not allow.');
        }
        if (plain && Object.prototype.hasOwnProperty.call(llm_tables.decided, name)) {
            if (members[name] !== undefined) {
                throw problem('ambiguous_member', `"${name}" is there twice.`, name);
            }
            return name;
        }
        if (llm_tables.refused.split(' ').includes(name)) {
            throw problem('unsupported_member', `"${name}" is not supported here: the model is what "model" says.`, name);
        }
        pattern = pattern || new RegExp(`^(?:${llm_tables.alike})$`);
        const like = canonical(name);
        if (pattern.test(like)) {
            throw problem('ambiguous_member', `${JSON.stringify(name)} can be taken for "${like}". Write that, once, and without escapes.`, like);
        }
        return '';
    }

    // --- the scanner -------------------------------------------------------------------------------------------------

    // RFC 8259, for an object: its decided members, by name, with the places of their name (`name`), value (`begin`, `end`) and
    // commas (`before`, `after`; -1 for none). Places count from the first byte. It makes nothing for what it passes. Returns a
    // function that goes a bit further, and returns that at the end and null before.
    function scanner(source) {
        const TAB = 9, NEWLINE = 10, RETURN = 13, SPACE = 32, QUOTE = 34, PLUS = 43, COMMA = 44, MINUS = 45, DOT = 46;
        const ZERO = 48, NINE = 57, COLON = 58, BRACKET = 91, BACKSLASH = 92, BRACKET_END = 93, BRACE = 123, BRACE_END = 125;
        const LETTER_U = 117, NONE = Infinity;
        const IN_VALUE = 0, IN_FIRST_VALUE = 1, IN_NAME = 2, IN_FIRST_NAME = 3, AT_COLON = 4, AFTER = 5, AT_END = 6;
        // The least that a parser in use allows (Go's).
        const DEEPEST = 10000;
        // After so many steps, or escapes, others have their turn.
        const STEPS = 10000, TURNS = 200;
        let turns = 0;
        const data = source.data, members = {};
        let base = 0, at = 0, end = source.end;
        let state = IN_VALUE, depth = 0, inside = false, steps = STEPS;
        let kinds = Buffer.alloc(64);
        let quote = -1, slash = -1;
        let begin = -1, last = -1, count = 0, comma = -1, member = null;

        // More of the body, what begins at `from` kept. False at the end.
        function more(from) {
            if (source.more === null || (from === 0 && end === data.length)) {
                return false;
            }
            const got = source.more(from);
            base += from;
            at -= from;
            end = source.end;
            quote = slash = -1;
            return got > 0;
        }

        // Here and in what follows `var`: njs allocates for each `let` that it passes, and frees that at the request's end.
        function find(byte, from) {
            var place = data.indexOf(byte, from);
            return place < 0 || place >= end ? NONE : place;
        }

        // To the end of a string; false where the piece ends before.
        function pass() {
            var length, c, place, hex, letter;
            for (;;) {
                if (quote < at) {
                    quote = find(QUOTE, at);
                }
                if (slash < at) {
                    slash = find(BACKSLASH, at);
                }
                if (quote < slash) {
                    at = quote + 1;
                    return true;
                }
                if (slash === NONE) {
                    at = end;
                    return false;
                }
                at = slash;
                length = data[at + 1] === LETTER_U ? 6 : 2;
                if (at + length > end) {
                    return false;
                }
                c = data[at + 1];
                if (c !== QUOTE && c !== BACKSLASH && c !== 47 && c !== 98 && c !== 102 && c !== 110 && c !== 114 && c !== 116 && c !== LETTER_U) {
                    throw broken(base + at, 'an unknown escape');
                }
                for (place = at + 2; place < at + length; place++) {
                    hex = data[place];
                    letter = hex | 32;
                    if (!((hex >= ZERO && hex <= NINE) || (letter >= 97 && letter <= 102))) {
                        throw broken(base + place, 'an unknown escape');
                    }
                }
                at += length;
                if (--steps <= 1) {
                    return false;
                }
            }
        }

        function digits(place) {
            var from = place;
            while (place < end && data[place] >= ZERO && data[place] <= NINE) {
                place++;
            }
            return place > from ? place : -1;
        }

        // The end of a number or word that begins here; `at` where it is none.
        function scalar() {
            var c = data[at], place, sign;
            if (c === 116 || c === 110) {
                // "true", "null"
                place = at + 4 <= end ? data.readUInt32BE(at) : 0;
                return place === 0x74727565 || place === 0x6e756c6c ? at + 4 : at;
            }
            if (c === 102) {
                // "alse"
                return at + 5 <= end && data.readUInt32BE(at + 1) === 0x616c7365 ? at + 5 : at;
            }
            place = c === MINUS ? at + 1 : at;
            place = data[place] === ZERO && place < end ? place + 1 : digits(place);
            if (place > 0 && place < end && data[place] === DOT) {
                place = digits(place + 1);
            }
            if (place > 0 && place < end && (data[place] | 32) === 101) {
                sign = data[place + 1] === PLUS || data[place + 1] === MINUS;
                place = digits(place + (sign ? 2 : 1));
            }
            return place < 0 ? at : place;
        }

        function open(kind) {
            if (depth === DEEPEST) {
                throw problem('invalid_json', `The body is nested deeper than ${DEEPEST} levels, which parsers do not take.`);
            }
            if (depth === kinds.length) {
                kinds = Buffer.concat([kinds, Buffer.alloc(kinds.length)]);
            }
            kinds[depth++] = kind;
            at++;
            state = kind === BRACE ? IN_FIRST_NAME : IN_FIRST_VALUE;
        }

        function ended() {
            state = depth === 0 ? AT_END : AFTER;
            if (depth === 1 && member !== null && member.end < 0) {
                member.end = base + at;
            }
        }

        return function () {
            var c, next, from, name;
            for (;;) {
                if (--steps <= 0) {
                    steps = STEPS;
                    turns++;
                    if (turns > TURNS) {
                        throw problem('too_complex', 'The body has more values and escapes than any model reads.');
                    }
                    return null;
                }
                if (inside) {
                    if (!pass()) {
                        if (steps > 1 && !more(at)) {
                            throw broken(base + at, 'a string without an end');
                        }
                        continue;
                    }
                    inside = false;
                    if (state !== AT_COLON) {
                        ended();
                    }
                }
                c = data[at];
                while (at < end && (c === SPACE || c === NEWLINE || c === RETURN || c === TAB)) {
                    c = data[++at];
                }
                if (at >= end) {
                    if (more(at)) {
                        continue;
                    }
                    break;
                }
                if (state === AFTER) {
                    if (c === COMMA) {
                        if (depth === 1) {
                            comma = base + at;
                            if (member !== null) {
                                member.after = comma;
                                member = null;
                            }
                        }
                        at++;
                        state = kinds[depth - 1] === BRACE ? IN_NAME : IN_VALUE;
                        continue;
                    }
                    if (c !== (kinds[depth - 1] === BRACE ? BRACE_END : BRACKET_END)) {
                        throw broken(base + at, 'a comma or an end is missing');
                    }
                    if (depth === 1) {
                        last = base + at;
                    }
                    depth--;
                    at++;
                    ended();
                } else if (state === AT_COLON) {
                    if (c !== COLON) {
                        throw broken(base + at, 'a colon is missing');
                    }
                    at++;
                    state = IN_VALUE;
                } else if (state === IN_NAME || state === IN_FIRST_NAME) {
                    if (c === BRACE_END && state === IN_FIRST_NAME) {
                        if (depth === 1) {
                            last = base + at;
                        }
                        depth--;
                        at++;
                        ended();
                        continue;
                    }
                    if (c !== QUOTE) {
                        throw broken(base + at, 'a name is missing');
                    }
                    if (depth > 1) {
                        at++;
                        inside = true;
                        state = AT_COLON;
                        continue;
                    }
                    from = at;
                    at++;
                    if (!pass()) {
                        steps = STEPS;
                        at = from;
                        if (!more(from)) {
                            throw broken(base + from, 'a name without an end, or one that is too long');
                        }
                        continue;
                    }
                    if (at - from > longest()) {
                        throw broken(base + from, 'a name that is too long');
                    }
                    name = named(data.slice(from + 1, at - 1).toString(), members);
                    member = name === '' ? null : {index: count, name: base + from, begin: -1, end: -1, before: comma, after: -1};
                    if (member !== null) {
                        members[name] = member;
                    }
                    count++;
                    state = AT_COLON;
                } else if (state === AT_END) {
                    throw broken(base + at, 'something follows its end');
                } else {
                    if (c === BRACKET_END && state === IN_FIRST_VALUE) {
                        depth--;
                        at++;
                        ended();
                        continue;
                    }
                    if (depth === 0 && c !== BRACE) {
                        throw problem('invalid_json', 'The body is not a JSON object.');
                    }
                    if (depth === 1 && member !== null && member.begin < 0) {
                        member.begin = base + at;
                    }
                    if (c === BRACE || c === BRACKET) {
                        if (depth === 0) {
                            begin = base + at;
                        }
                        open(c);
                    } else if (c === QUOTE) {
                        at++;
                        inside = true;
                        state = AFTER;
                    } else {
                        next = scalar();
                        if (next >= end || end - at < 8) {
                            // It may go on in the next piece.
                            if (more(at)) {
                                continue;
                            }
                            next = scalar();
                        }
                        if (next === at) {
                            throw broken(base + at, 'a value is missing');
                        }
                        at = next;
                        ended();
                    }
                }
            }
            if (state !== AT_END) {
                throw broken(base + end, 'it has no end');
            }
            return {members, count, begin, last, size: base + end};
        };
    }

    return unusual();
}

// --- the bytes that go up ----------------------------------------------------------------------------------------

// Likewise.
function edits() {
    // `name`: what the upstream calls the model, or '' where it is called as the caller did; `usage`: ask for usage. Only the
    // bytes of what changes are others.
    function edited(r, asked, name, usage) {
        const body = r.requestBuffer;
        const changes = [];
        if (name !== '') {
            const at = modelAt(r, asked, body.length);
            changes.push([at[0], at[1], JSON.stringify(name)]);
        }
        if (usage) {
            changes.push(usageEdit(r, asked, body));
        }
        changes.sort((one, other) => one[0] - other[0]);
        const pieces = [];
        let from = 0;
        changes.forEach((change) => {
            pieces.push(body.slice(from, change[0]), Buffer.from(change[2]));
            from = change[1];
        });
        pieces.push(body.slice(from));
        return Buffer.concat(pieces);
    }

    function modelAt(r, asked, size) {
        if (asked.members) {
            return [asked.members.model.begin, asked.members.model.end];
        }
        const end = size - r.rawVariables.llm_j_after_model.length;
        return [end - asked.model.length - 2, end];
    }

    function usageEdit(r, asked, body) {
        const wanted = `{"${llm_tables.option}":true}`;
        if (!asked.options) {
            const end = asked.members ? asked.last : body.lastIndexOf('}');
            return [end, end, `,"stream_options":${wanted}`];
        }
        if (!asked.members) {
            const end = body.length - r.rawVariables.llm_j_after_stream_options.length;
            return [end - asked.options.length, end, wanted];
        }
        const begin = asked.members.stream_options.begin;
        const text = withUsage(asked);
        return [begin, asked.members.stream_options.end, text];
    }

    // The options with usage asked for, everything else in them as it was written.
    function withUsage(asked) {
        const text = asked.options;
        if (text === 'null' || !text) {
            return `{"${llm_tables.option}":true}`;
        }
        const bytes = Buffer.from(text);
        if (asked.place !== null) {
            return Buffer.concat([bytes.slice(0, asked.place[0]), Buffer.from('true'), bytes.slice(asked.place[1])]).toString();
        }
        const empty = /^\{\s*\}$/.test(text);
        return `{"${llm_tables.option}":true${empty ? '' : ','}${text.slice(1)}`;
    }

    // The same for a body in a file. Its beginning travels at the end of the header: what comes first there replaces the
    // brace and the members that are blanked here. Returns what beginning() needs.
    function prepared(asked, targets, model, usage) {
        let others = false;
        // An array that njs preloads has no methods.
        for (let index = 0; index < targets.length; index++) {
            others = others || targets[index].model !== model;
        }
        const descriptor = fs.openSync(asked.file, 'r+');
        const removed = [];
        if (others) {
            removed.push(asked.members.model);
        }
        if (usage && asked.members.stream_options !== undefined) {
            removed.push(asked.members.stream_options);
        }
        removed.sort((one, other) => other.index - one.index);
        blank(descriptor, asked.begin, asked.begin + 1);
        let behind = asked.count;
        removed.forEach((member) => {
            blank(descriptor, member.name, member.end);
            if (member.after >= 0) {
                blank(descriptor, member.after, member.after + 1);
            }
            // Nothing is left behind it.
            if (member.index === behind - 1) {
                behind--;
                if (member.before >= 0) {
                    blank(descriptor, member.before, member.before + 1);
                }
            }
        });
        fs.closeSync(descriptor);
        return JSON.stringify({
            size: asked.size,
            added: usage ? `"stream_options":${withUsage(asked)}` : '',
            left: asked.count > removed.length,
            others,
        });
    }

    // What goes up before the rest of a body in a file, as the end of the last header: neither it nor anything else of the
    // body is in memory then. `name` is what the upstream calls the model.
    function beginning(vars, name) {
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

    function blank(descriptor, begin, end) {
        fs.writeSync(descriptor, Buffer.alloc(end - begin, ' '), 0, end - begin, begin);
    }

    return {beginning, edited, prepared};
}

export default {careful, edits, usual};
