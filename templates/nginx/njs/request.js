// What a request asks for, read out of the bytes that go up. Whatever an upstream's parser may read in another way is
// refused: a member twice, in another case, with an escape in its name, or in JSON that only some parsers take.
//
// nginx's own patterns ($llm_read, $llm_strings: infra/edge/llm_request.py) read most bodies; what is here reads the others, and
// says what is wrong. A body in a file is read in pieces, so that it takes no memory.

import fs from 'fs';
import scanner from './scan.js';

// A promise of the same as in usual.js for bodies of another kind, with `file`, empty for one in memory, and `members`.
// Throws a problem. Everything is inside: functions are made for each request.
function careful(r) {
    function most(one, other) {
        return Math.max(Number(one) || 0, Number(other) || 0);
    }

    function problem(code, message, param) {
        return {code, message, param: param || null};
    }

    let pattern = null;

    function unusual() {
        const file = r.variables.request_body_file || '';
        const source = file === '' ? inMemory() : inFile(file);
        return new Promise((resolve, reject) => {
            const advance = scanner(source, named, problem, longest());
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

    return unusual();
}

export default careful;
