// What comes back: stripped, measured, and charged (llm.js as nginx calls it).

import assert from 'node:assert/strict';
import test from 'node:test';

import {edge, handlersOf, request} from './edge.js';

const USAGE = '"usage": {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}';

// The answer to a request that was admitted, in pieces. Returns what is out, and what is counted.
async function answered(pieces, {status = 200, headers = {}, mode = '', type = 'application/json', kind = 'chat', cut = false, tables = {}} = {}) {
    const {shared, logged} = edge({tables});
    const handlers = await handlersOf();
    const variables = {
        llm_caller: 'key:alice', llm_model: 'gpt-4.1', llm_terms: '400 1000 7', llm_kind: kind, llm_upstream: 'first',
        llm_mode: mode, upstream_http_content_type: type, request_time: '0.5', body_bytes_sent: '0',
    };
    const r = request({variables});
    r.status = status;
    r.headersOut = {'Content-Type': type, 'Content-Length': String(Buffer.concat(pieces.map((one) => Buffer.from(one))).length), ...headers};
    handlers.headers(r);
    pieces.forEach((piece, index) => {
        handlers.body(r, Buffer.from(piece), {last: !cut && index === pieces.length - 1});
    });
    r.variables.status = String(r.status);
    handlers.settle(r);
    assert.deepEqual([...r.logged, ...logged], []);
    const counted = Object.fromEntries(shared.llm_usage.items().filter(([key]) => key.split(' ').length === 4)
        .map(([key, value]) => [key.split(' ')[3], value]));
    return {r, shared, counted, out: Buffer.concat(r.sent).toString()};
}

test('usage is found wherever it stands', async () => {
    const before = `{"id": "x", "choices": [{"message": {"content": "say \\"usage\\": {\\"prompt_tokens\\": 9}"}}]`;
    const spaced = [
        `${before}, ${USAGE}}`,
        `{${USAGE}, ${before.slice(1)}}`,
        `${before}, "usage": {"completion_tokens": 22, "prompt_tokens": 11}}`,
        `${before}, "usage": {"x": {"y": "}"}, "completion_tokens": 22, "z": "\\"{", "prompt_tokens": 11}}`,
        `${before}, "usage" :\n {\n\t"prompt_tokens" : 11,\n\t"completion_tokens" : 22\n}}`,
        `{"usage": {"prompt_tokens": 1, "completion_tokens": 1}, ${before.slice(1)}, ${USAGE}}`,
        `{${USAGE}, ${before.slice(1)}, "usage": null}`,
        `${before}, "usage": {"prompt_tokens": 11, "completion_tokens": 22, "details": {"x": 0}, "more": {"y": [{}, {}]}}, "id": "x"}`,
        `${before}, "usage": {"prompt_tokens": 11, "total_tokens": 33, "completion_tokens": 22}}`,
        `{"usage": {"prompt_tokens": 1, "completion_tokens": 1}, ${before.slice(1)}, "x": {}, "usage" :{"prompt_tokens": 11, "completion_tokens": 22}}`,
    ];
    for (const body of [...spaced, ...spaced.map((one) => one.replaceAll(', ', ',').replaceAll(': ', ':'))]) {
        for (let at = 0; at <= body.length; at++) {
            const {counted, out} = await answered([body.slice(0, at), body.slice(at)]);

            assert.equal(out, body);
            assert.deepEqual([counted.tokens_in, counted.tokens_out, counted.estimated], [11, 22, undefined], `${body} at ${at}`);
        }
    }
});

test('a long answer byte by byte', async () => {
    const body = `{"choices": [{"message": {"content": "${'ä'.repeat(300)}"}}], ${USAGE}}`;
    const {counted, out} = await answered([...Buffer.from(body)].map((byte) => Buffer.of(byte)));

    assert.equal(out, body);
    assert.deepEqual([counted.tokens_in, counted.tokens_out], [11, 22]);
});

test('numbers that are none are not taken for usage', async () => {
    for (const usage of ['"11","completion_tokens":22', '11.5,"completion_tokens":22', '11,"completion_tokens":"22"', '11,"completion_tokens":2e9',
        '1111111111111111,"completion_tokens":22', '-1,"completion_tokens":22']) {
        const quick = await answered([`{"choices":[{"a":1}],"usage":{"prompt_tokens":${usage}}}`]);
        const slow = await answered([`{"choices":[{"a":1}],"usage" :{"prompt_tokens":${usage}}}`]);

        assert.deepEqual(quick.counted, slow.counted, usage);
    }
});

test('what is reserved is released when a request is over', async () => {
    const price = (await answered(['{}'])).shared && globalThis.llm_tables.prices['gpt-4.1'];
    const {shared} = await answered([`{"choices":[],${USAGE}}`]);

    assert.equal(shared.llm_reserved.get('key:alice 7'), -(100 * price.input + 1000 * price.output) / 1e6);
});

test('what an upstream served is counted for it, and a failure is not', async () => {
    const of = (shared) => Object.fromEntries(shared.llm_usage.items().map(([key, value]) => [key.slice(8), value])
        .filter(([key]) => key.startsWith('>')));
    const {counted, shared} = await answered([`{"choices":[],${USAGE}}`]);

    assert.deepEqual(of(shared), {
        '>first requests': 1, '>first tokens_in': 11, '>first tokens_out': 22, '>first cost': counted.cost,
    });
    assert.deepEqual(of((await answered([''])).shared), {});
    assert.deepEqual(of((await answered(['{"error":{}}'], {status: 500})).shared), {});
});

test('usage that cannot be is not believed', async () => {
    for (const number of ['9'.repeat(30), '99999999', '-5', '"11"', '1.5']) {
        const {counted, r} = await answered([`{"choices": [], "usage": {"prompt_tokens": ${number}, "completion_tokens": 2}}`]);

        assert.equal(r.variables.llm_counted, number === '1.5' ? 'exactly' : 'by estimate', number);
        assert.ok(counted.tokens_in <= 100);
    }
});

const CHUNK = '{"id":"x","choices":[{"index":0,"delta":{"content":"Hi \\"there\\""}}],"usage":null}';
const LAST = '{"id":"x","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":22}}';
const BOTH = '{"id":"x","choices":[{"delta":{"content":"."}}],"usage":{"prompt_tokens":11,"completion_tokens":22},"x":1}';

function events(out) {
    return out.split(/\r?\n|\r/).filter((line) => line.startsWith('data: ')).map((line) => line.slice(6))
        .map((line) => (line === '[DONE]' ? line : JSON.parse(line)));
}

test('a stream whose caller did not ask for usage, cut at every byte', async () => {
    for (const end of ['\n', '\r\n', '\r']) {
        for (const last of [LAST, BOTH]) {
            const text = [`: waiting${end}`, `data: ${CHUNK}${end}`, `data: ${last}${end}`, `data: [DONE]${end}`].join(end);
            const body = `${text}${end}`;
            // The first kind at every byte, the others at every fifth.
            for (let at = 0; at <= body.length; at += end === '\n' ? 1 : 5) {
                const {counted, out} = await answered([body.slice(0, at), body.slice(at)], {mode: 'hide', type: 'text/event-stream'});
                const seen = events(out);

                assert.ok(!out.includes('prompt_tokens'), `${at}: ${out}`);
                assert.equal(seen.length, last === LAST ? 2 : 3, `${at}: ${out}`);
                assert.equal(seen[0].choices[0].delta.content, 'Hi "there"');
                assert.equal(seen.at(-1), '[DONE]');
                assert.ok(out.startsWith(': waiting'));
                assert.deepEqual([counted.tokens_in, counted.tokens_out], [11, 22], `${at}`);
            }
        }
    }
});

test('a stream whose caller asked for usage passes as it is', async () => {
    const body = `data: ${CHUNK}\n\ndata: ${LAST}\n\ndata: [DONE]\n\n`;
    for (let at = 0; at <= body.length; at++) {
        const {counted, out} = await answered([body.slice(0, at), body.slice(at)], {mode: 'show', type: 'text/event-stream'});

        assert.equal(out, body);
        assert.deepEqual([counted.tokens_in, counted.tokens_out], [11, 22], `${at}`);
    }
});

test('a byte waits only where it may be usage', async () => {
    const half = `data: ${CHUNK.slice(0, 60)}`;
    const {out} = await answered([`data: ${CHUNK}\n\n`, half], {mode: 'hide', type: 'text/event-stream', cut: true});

    assert.ok(out.length >= half.length, out);
});

test('an aborted stream is charged by what came', async () => {
    const {counted, r} = await answered([`data: ${CHUNK}\n\n`, `data: ${CHUNK}\n\n`], {mode: 'hide', type: 'text/event-stream', cut: true});

    assert.equal(r.variables.llm_counted, 'by estimate');
    assert.equal(counted.tokens_in, 100);
    assert.ok(counted.tokens_out > 0);
});

test('headers of an upstream stay here, but for a few that are what they should be', async () => {
    const {r} = await answered([`{"choices": [], ${USAGE}}`], {
        headers: {
            'Set-Cookie': 'a=b', 'X-Key': 'sk-first', 'retry-after-ms': '120', 'x-should-retry': 'maybe', Server: 'x', 'Content-Disposition': 'sk-first',
        },
        type: 'Application/JSON; charset=sk-first',
    });

    assert.deepEqual(r.headersOut, {'Content-Type': 'application/json', 'retry-after-ms': '120'});
});

test('what is no answer is a failure, and the upstream is not asked first for a while', async () => {
    for (const [pieces, options, code] of [
        [[''], {}, 'upstream_empty'],
        [['\u001f\u008b'], {headers: {'Content-Encoding': 'gzip'}}, 'upstream_coding'],
        [['{"error": {"message": "x"}}'], {}, null],
    ]) {
        const {counted, out, r, shared} = await answered(pieces, options);

        assert.equal(r.status, code ? 502 : 200);
        assert.equal(JSON.parse(out).error.code ?? null, code);
        assert.deepEqual(counted, {failed: 1});
        assert.ok(shared.llm_down.has('first gpt-4.1'));
    }
});

test('an error passes where it is JSON, and is ours where it is not', async () => {
    const json = '{"error": {"message": "too long", "code": "context_length_exceeded"}}';

    assert.equal((await answered([json.slice(0, 9), json.slice(9)], {status: 400, type: 'text/html'})).out, json);
    const page = await answered(['<html>', 'slow down</html>'], {status: 429, type: 'text/html'});
    assert.equal(JSON.parse(page.out).error.code, 'rate_limit_exceeded');
    assert.equal(page.r.headersOut['Content-Type'], 'application/json');
    assert.deepEqual(page.counted, {failed: 1});
});

test('LiteLLM does not say how models are routed', async () => {
    const said = JSON.stringify({error: {message: 'litellm.BadRequestError: OpenAIException - no such thing\n\nLiteLLM: tried 3', code: '400'}});
    const {out} = await answered([said], {status: 400, tables: {engine: 'litellm'}});

    assert.equal(JSON.parse(out).error.message, 'no such thing');
});
