// The places of a request body's members, without parsing it: RFC 8259 for an object, a piece at a time.

// Return a function that scans the next part of the body. It returns null before the end; at the end it returns the members that
// decide, by name, with the places of their name (`name`), value (`begin`, `end`) and commas (`before`, `after`; -1 for none).
// Places count from the first byte. `named` maps a raw name to a member or to ''; `problem` makes an error; a name has at most
// `longest` bytes. It allocates nothing for what it passes.
function scanner(source, named, problem, longest) {
    const TAB = 9, NEWLINE = 10, RETURN = 13, SPACE = 32, QUOTE = 34, PLUS = 43, COMMA = 44, MINUS = 45, DOT = 46;
    const ZERO = 48, NINE = 57, COLON = 58, BRACKET = 91, BACKSLASH = 92, BRACKET_END = 93, BRACE = 123, BRACE_END = 125;
    const LETTER_U = 117, NONE = Infinity;
    const IN_VALUE = 0, IN_FIRST_VALUE = 1, IN_NAME = 2, IN_FIRST_NAME = 3, AT_COLON = 4, AFTER = 5, AT_END = 6;
    // The least that a parser in use allows (Go's).
    const DEEPEST = 10000;
    // After so many steps, or escapes, others have their turn.
    const STEPS = 10000, TURNS = 200;
    let turns = 0;

    function broken(place, what) {
        return problem('invalid_json', `The body is not valid JSON: ${what} at byte ${place}.`);
    }

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
                if (at - from > longest) {
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

export default scanner;
