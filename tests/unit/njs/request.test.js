// What a body asks for, read by steps (request.js).

import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';

import {edge, request, script} from './edge.js';

// It has no state of its own.
const reader = await script('request');
const editor = await script('edits');

async function read(body, {file = '', strings = '1'} = {}) {
    const variables = {request_body_file: file, llm_strings: strings};
    return reader(request({body, variables}));
}

async function refusal(body, options) {
    try {
        await read(body, options);
    } catch (problem) {
        return problem;
    }
    throw new assert.AssertionError({message: `accepted: ${body}`});
}

test('what a body asks for', async () => {
    edge();
    const told = await read('{"messages": [{"content": "x"}], "model": "gpt-4.1", "stream": true, "n": 2, "max_tokens": 7}');

    assert.equal(told.model, 'gpt-4.1');
    assert.equal(told.stream, true);
    assert.equal(told.shows, false);
    assert.equal(told.answers, 2);
    assert.equal(told.limit, 7);
    assert.equal(told.count, 5);
});

test('a decided member that can be read in two ways is refused', async () => {
    edge();
    for (const name of ['Model', 'MODEL', 'mod\\u0065l', 'model\\u0000', 'model\\u0000x', 'mo\u200bdel', '\u017ftream', 'model_', 'streamoptions']) {
        const problem = await refusal(`{"${name}": "x", "model": "gpt-4.1"}`);

        assert.equal(problem.code, 'ambiguous_member', name);
    }
    assert.equal((await refusal('{"model": "a", "model": "b"}')).code, 'ambiguous_member');
    assert.equal((await refusal('{"models": ["a"], "model": "b"}')).code, 'unsupported_member');
    assert.equal((await refusal('{"model": "a", "stream": 1}')).code, 'invalid_value');
    assert.equal((await refusal('{"model": "a", "n": 1.0}')).code, 'invalid_value');
    assert.equal((await refusal('{"model": "a", "stream": true, "stream_options": {"include_usage": 1}}')).code, 'invalid_value');
});

test('a string that is not one is refused by what nginx found', async () => {
    edge();

    assert.equal((await refusal('{"model": "a", "x": "\u0001"}', {strings: ''})).code, 'invalid_json');
});

test('nested as deep as parsers allow, and no deeper', async () => {
    edge();
    const nested = (levels) => `{"model": "a", "x": ${'['.repeat(levels)}${']'.repeat(levels)}}`;

    assert.equal((await read(nested(9999))).model, 'a');
    assert.match((await refusal(nested(10000))).message, /deeper than 10000 levels/);
});

// A small generator, so that a failure can be repeated.
function random(seed) {
    let state = seed;
    return (below) => {
        state = (state * 1103515245 + 12345) % 2147483648;
        return state % below;
    };
}

function value(next, depth) {
    const kind = next(depth > 3 ? 5 : 7);
    if (kind === 5) {
        return Array.from({length: next(4)}, () => value(next, depth + 1));
    }
    if (kind === 6) {
        return Object.fromEntries(Array.from({length: next(4)}, (_, index) => [`k${index}\\"${next(9)}`, value(next, depth + 1)]));
    }
    return [null, true, -12.5e-7, 'text "quoted" \\ \u00e9 \n', 0][kind];
}

test('what it takes is JSON to JSON.parse, and the other way round', async () => {
    edge();
    const next = random(7);
    const pieces = ['{', '}', '[', ']', ',', ':', '"', '\\', '0', '1', '-', '.', 'e', 't', 'null', ' ', '\n', '\\u00', 'x'];
    let taken = 0, refused = 0;
    for (let round = 0; round < 2000; round++) {
        let text = JSON.stringify({model: 'a', x: value(next, 0)}, null, next(3));
        for (let change = next(3); change > 0; change--) {
            const at = next(text.length);
            text = text.slice(0, at) + pieces[next(pieces.length)] + text.slice(at + next(2));
        }
        let expected = true;
        try {
            const parsed = JSON.parse(text);
            expected = typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
        } catch {
            expected = false;
        }
        // What nginx's own pattern says of the strings: a string holds no control character.
        const strings = /^(?:[^"]|"(?:[^"\\\u0000-\u001f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")*$/.test(text) ? '1' : '';
        let problem = null;
        try {
            await read(text, {strings});
        } catch (e) {
            assert.equal(typeof e.code, 'string', e.stack);
            problem = e;
        }
        if (problem === null || problem.code === 'invalid_json') {
            assert.equal(problem === null, expected, `${text}: ${problem && problem.message}`);
        }
        taken += problem === null ? 1 : 0;
        refused += problem === null ? 0 : 1;
    }
    assert.ok(taken > 300 && refused > 300, `${taken} and ${refused}`);
});

function inFile(text) {
    const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'njs-')), 'body');
    fs.writeFileSync(file, text);
    return file;
}

// Where the pieces of a file end is at every place of what matters.
test('a body in a file, read in pieces', async () => {
    edge();
    const tail = '", "model": "gp\\u0074", "stream":true ,"stream_options" : {"include_usage" : false}, "n":12}';
    for (let shift = 0; shift < tail.length; shift++) {
        const text = `{"x": "${'y'.repeat(262144 - 8 - shift)}${tail}`;
        const told = await read('', {file: inFile(text)});

        assert.deepEqual([told.model, told.stream, told.answers, told.size], ['gpt', true, 12, text.length], `${shift}`);
        assert.equal(text.slice(told.members.model.begin, told.members.model.end), '"gp\\u0074"');
    }
});

test('a file as it goes up: JSON with the members that the upstream is to have', async () => {
    edge();
    for (const body of [
        '{"model": "a", "x": 1}', '{"x": 1, "model": "a"}', '{"model": "a"}', '{"stream_options": null, "model": "a", "stream": true}',
        '{"a": 1, "stream": true, "stream_options": {"include_usage": false, "o": 9007199254740993}, "model": "a"}',
    ]) {
        const file = inFile(body);
        const asked = await reader(request({variables: {request_body_file: file}}));
        const edits = editor();
        const vars = {llm_rest: edits.prepared(asked, [{upstream: 'first', model: 'b'}], 'a', asked.stream)};
        edits.beginning(vars, 'b');
        const start = vars.llm_start.split('\r\n\r\n')[1];
        const rest = fs.readFileSync(file, 'utf8');
        const sent = start + rest;

        assert.equal(Number(vars.llm_length), start.length + 4 + rest.length);
        const expected = {...JSON.parse(body), model: 'b'};
        if (asked.stream) {
            expected.stream_options = {...expected.stream_options, include_usage: true};
        }
        assert.deepEqual(JSON.parse(sent), expected, sent);
        assert.equal(body.includes('9007199254740993'), sent.includes('9007199254740993'));
    }
});

test('bytes in memory change where they have to, and nowhere else', async () => {
    edge();
    const body = '{ "model" : "a\\u0062", "x": 1e400, "y": 9007199254740993, "stream": true, "z": "\\ud800" }';
    const r = request({body});
    const asked = await reader(r);

    assert.equal(
        editor().edited(r, asked, 'other', true).toString(),
        '{ "model" : "other", "x": 1e400, "y": 9007199254740993, "stream": true, "z": "\\ud800" ,"stream_options":{"include_usage":true}}',
    );
});
