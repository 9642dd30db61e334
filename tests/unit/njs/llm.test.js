// Who calls, and which upstream (llm.js as nginx calls it).

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';

import {KEY, edge, request, script, settled} from './edge.js';

// The way of a request: its key first, then what it asks for. `read` is what nginx's pattern finds of the body.
async function asked(options = {}, {read = 'gpt-4.1||||||', place = {}, handler = 'chat'} = {}) {
    const world = edge(place);
    const handlers = await script('llm');
    const r = request({...options, variables: {llm_read: read, ...options.variables}});
    const denied = handlers.denied(r);
    if (denied === '') {
        handlers[handler](r);
        await settled(r);
    }
    return {...world, r, denied, handlers};
}

function code(r) {
    return JSON.parse(r.answered.text).error.code;
}

test('a key opens the proxy, and nothing else does', async () => {
    assert.equal((await asked()).denied, '');
    assert.equal((await asked({authorization: `bearer   ${KEY}`})).denied, '');
    for (const authorization of ['', 'Bearer x', `Bearer ${KEY}x`, `Basic ${KEY}`, `Bearer ${KEY.replace('k', 'l')}`, 'Bearer constructor']) {
        assert.equal((await asked({authorization})).denied, '401', authorization);
    }
    assert.equal((await asked({}, {place: {caller: {expires: 1}}})).denied, '401');
    assert.equal((await asked({}, {place: {caller: {internal: true}}})).denied, '403');
});

test('the model chooses the upstream', async () => {
    const {r} = await asked();

    assert.equal(r.redirected, '@llm_first_chat');
    assert.equal(r.variables.llm_key, 'sk-first');
    assert.equal(r.variables.llm_edited, undefined, 'the body goes up as it came');
    const other = await asked({}, {read: 'cheap||||||'});
    assert.equal(other.r.redirected, '@llm_second_chat_last');
});

test('a model that is not served is no property of an object', async () => {
    for (const model of ['constructor', '__proto__', 'toString', 'gpt-5']) {
        assert.equal(code((await asked({}, {read: `${model}||||||`})).r), 'model_not_found');
    }
    assert.equal(code((await asked({}, {place: {caller: {models: 'cheap'}}})).r), 'model_not_allowed');
});

test('a stream asks for usage, and its caller sees none', async () => {
    const body = '{"model":"gpt-4.1","stream":true}';
    const {r} = await asked({body}, {read: 'gpt-4.1|true|||||'});

    assert.equal(r.variables.llm_mode, 'hide');
    assert.equal(r.variables.llm_edited, '1');
    assert.deepEqual(JSON.parse(r.variables.llm_body), {model: 'gpt-4.1', stream: true, stream_options: {include_usage: true}});
});

test('a body that the pattern does not read is read by steps', async () => {
    const {r} = await asked({body: '{"model": "gpt-4.1", "\u00e9": 1}'}, {read: ''});

    assert.equal(r.redirected, '@llm_first_chat');
    const twice = await asked({body: '{"model": "gpt-4.1", "Model": "x"}'}, {read: ''});
    assert.deepEqual([twice.r.answered.status, code(twice.r)], [400, 'ambiguous_member']);
});

test('the next upstream gets the body with its own name of the model', async () => {
    const {handlers, r, shared} = await asked({body: '{"model": "gpt-4.1"}', variables: {llm_j_after_model: '}'}});
    r.variables.upstream_status = '503';
    r.redirected = '';
    handlers.next(r);
    await settled(r);

    assert.equal(r.redirected, '@llm_second_chat_last');
    assert.equal(r.variables.llm_body.toString(), '{"model": "other"}');
    assert.ok(shared.llm_usage.keys().some((key) => key.endsWith(' @first 503')));
});

test('an upstream that answered with nothing is not the first for a while', async () => {
    const handlers = await script('llm');
    edge();
    globalThis.ngx.shared.llm_down.set('first gpt-4.1', 1);
    const r = request({body: '{"model": "gpt-4.1"}', variables: {llm_read: 'gpt-4.1||||||', llm_j_after_model: '}'}});
    assert.equal(handlers.denied(r), '');
    handlers.chat(r);

    assert.equal(r.redirected, '@llm_second_chat_last');
});

test('what a request may cost is reserved', async () => {
    const {r, shared} = await asked({}, {read: 'gpt-4.1|||1000|||'});
    const dollars = Number(r.variables.llm_terms.split(' ')[3]);

    assert.ok(dollars > 0);
    assert.deepEqual(shared.llm_reserved.items().map((one) => one[1]), [dollars]);

    const {handlers} = await asked({}, {read: 'gpt-4.1|||999999999|||'});
    const second = request({variables: {llm_read: 'gpt-4.1|||1000|||'}});
    handlers.denied(second);
    handlers.chat(second);
    assert.deepEqual([second.answered.status, code(second)], [429, 'budget_reserved']);
});

test('models that a key may use', async () => {
    const {r} = await asked({method: 'GET', uri: '/llm/v1/models'}, {handler: 'models', place: {caller: {models: 'cheap'}}});

    assert.deepEqual(JSON.parse(r.answered.text).data.map((one) => one.id), ['cheap']);
});

test('a token of OAuth needs the scope', async () => {
    edge();
    const handlers = await script('llm');
    const told = (scopes, sub) => {
        const r = request();
        r.headersOut = {'X-Auth-Scopes': scopes, 'X-Auth-Tenant': 'acme', 'X-Auth-Sub': sub};
        handlers.token(r);
        return r;
    };

    assert.equal(told('chat llm', 'app').variables.llm_caller, 'client:acme/app');
    assert.match(told('llm', 'a b\u00e9').variables.llm_caller, /^client:[0-9a-f]{32}$/);
    assert.equal(told('chat', 'app').status, 403);
});

test('what was used is kept on disk, and taken over after a start', async () => {
    const {directory, logged} = edge();
    const usage = await script('usage');
    globalThis.ngx.shared.llm_usage.set('unsaved', 1);
    usage.add('key:alice', 'gpt-4.1', 'requests', 10, 20, 0.5, 0);
    const file = path.join(directory, 'usage.json');
    const month = usage.month(new Date());

    assert.deepEqual(JSON.parse(fs.readFileSync(file, 'utf8')).months[month], {
        'key:alice': {'gpt-4.1': {requests: 1, tokens_in: 10, tokens_out: 20, cost: 0.5}},
    });
    globalThis.ngx.shared.llm_usage.entries.clear();
    assert.equal(usage.spent('key:alice'), 0.5);
    fs.writeFileSync(file, '{');
    globalThis.ngx.shared.llm_usage.entries.clear();
    assert.equal(usage.spent('key:alice'), 0);
    assert.ok(fs.existsSync(`${file}.damaged`));
    assert.equal(logged.length, 1);
});

test('a key with a budget is refused where there is no room to count its costs, and no other one is', async () => {
    const handlers = await script('llm');
    const {logged, shared} = edge();
    const asks = () => {
        const r = request({body: '{"model": "gpt-4.1"}', variables: {llm_read: 'gpt-4.1||||||', llm_j_after_model: '}'}});
        assert.equal(handlers.denied(r), '');
        handlers.chat(r);
        return r;
    };
    const add = shared.llm_usage.add;
    shared.llm_usage.add = (key, value) => {
        if (key.endsWith('key:alice')) {
            throw new Error('no room');
        }
        return add.call(shared.llm_usage, key, value);
    };

    const refused = asks();

    assert.deepEqual([refused.answered.status, code(refused)], [503, 'usage_not_counted']);
    assert.match(logged.join(), /no room for the counter of key:alice/);
    shared.llm_usage.add = add;
    assert.equal(asks().redirected, '@llm_first_chat');
    assert.equal(shared.llm_usage.items().filter(([key]) => key.endsWith(' key:alice'))[0][1], 0);
});

test('costs are counted first, in the counter that has its place', async () => {
    const {shared} = edge();
    const usage = await script('usage');
    assert.equal(usage.spent('key:alice'), 0);
    const incr = shared.llm_usage.incr;
    shared.llm_usage.incr = (key, ...more) => {
        if (!shared.llm_usage.has(key)) {
            throw new Error('no room');
        }
        return incr.call(shared.llm_usage, key, ...more);
    };

    assert.throws(() => usage.add('key:alice', 'gpt-4.1', 'requests', 10, 20, 0.5, 0), /no room/);

    assert.equal(usage.spent('key:alice'), 0.5);
});
