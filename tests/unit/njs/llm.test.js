// Who calls, and which upstream (llm.js as nginx calls it).

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';

import {KEY, edge, handlersOf, request, script, settled} from './edge.js';

// The way of a request: its key first, then what it asks for. `read` is what nginx's pattern finds of the body.
async function asked(options = {}, {read = 'gpt-4.1||||||', place = {}, handler = 'chat'} = {}) {
    const world = edge(place);
    const handlers = await handlersOf();
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

test('why a key is refused', async () => {
    const reason = async (...given) => (await asked(...given)).r.variables.llm_refusal;

    assert.equal(await reason(), undefined);
    assert.equal(await reason({authorization: ''}), 'missing');
    for (const authorization of ['Bearer x', `Bearer ${KEY}x`, `Basic ${KEY}`, `Bearer ${KEY.replace('k', 'l')}`]) {
        assert.equal(await reason({authorization}), 'unknown', authorization);
    }
    assert.equal(await reason({}, {place: {caller: {expires: 1}}}), 'expired');
    assert.equal(await reason({}, {place: {caller: {internal: true}}}), 'internal');
    // Whoever does not hold the whole key learns nothing of it.
    assert.equal(await reason({authorization: `Bearer ${KEY.slice(0, -1)}l`}, {place: {caller: {expires: 1}}}), 'unknown');
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

test('a long body is read by the pattern in a location of its own', async () => {
    const body = `{"model": "cheap", "messages": "${'x'.repeat(16384)}"}`;
    const {r} = await asked({body}, {read: ''});
    assert.deepEqual([r.redirected, r.variables.llm_kind, r.variables.llm_model], ['@llm_long', 'chat', undefined]);

    // As nginx goes on: with its variables, and without anything else.
    const go = async (read, text = body) => {
        const on = request({body: text, variables: {...r.variables, content_length: String(text.length), llm_long_read: read}});
        (await handlersOf()).long(on);
        await settled(on);
        return on;
    };
    const usual = await go('cheap||||||');
    assert.deepEqual([usual.redirected, usual.variables.llm_model], ['@llm_second_chat_last', 'cheap']);
    assert.equal((await go('unusual')).redirected, '@llm_second_chat_last', 'it is read by steps');
    assert.equal(code(await go('unusual', body.replace('"messages"', '"Model"'))), 'ambiguous_member');
    assert.equal(code(await go('gpt-5||||||')), 'model_not_found');
    const asks = [16383, 16384].map((length) => request({body: 'x'.repeat(length), variables: {llm_read: 'cheap||||||'}}));
    for (const one of asks) {
        const handlers = await handlersOf();
        assert.equal(handlers.denied(one), '');
        handlers.chat(one);
    }
    assert.deepEqual(asks.map((one) => one.redirected), ['@llm_second_chat_last', '@llm_long']);
});

test('a long body goes on to the next upstream with its own name of the model', async () => {
    const body = `{"messages": "${'x'.repeat(20000)}", "model": "gpt-4.1"}`;
    edge();
    const r = request({body, variables: {
        llm_caller: 'key:alice', llm_kind: 'chat', llm_model: 'gpt-4.1', llm_next: '1', llm_upstream: 'first', upstream_status: '503',
        llm_long_read: 'gpt-4.1||||||', llm_j_after_model: '}',
    }});
    (await handlersOf()).next(r);
    await settled(r);

    assert.equal(r.redirected, '@llm_second_chat_last');
    assert.equal(r.variables.llm_body.toString(), body.replace('gpt-4.1', 'other'));
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
    const handlers = await handlersOf();
    edge();
    globalThis.ngx.shared.llm_down.set('first gpt-4.1', 1);
    const r = request({body: '{"model": "gpt-4.1"}', variables: {llm_read: 'gpt-4.1||||||', llm_j_after_model: '}'}});
    assert.equal(handlers.denied(r), '');
    handlers.chat(r);

    assert.equal(r.redirected, '@llm_second_chat_last');
});

test('what a request may cost is reserved', async () => {
    const {r, shared} = await asked({body: '{"model": "gpt-4.1", "max_tokens": 1000}'}, {read: 'gpt-4.1|||1000|||'});
    const price = globalThis.llm_tables.prices['gpt-4.1'], size = Number(r.variables.content_length);
    const dollars = (Math.ceil(size / 4) * price.input + 1000 * price.output) / 1e6;
    const [[name, held]] = shared.llm_reserved.items();

    assert.equal(held, dollars);
    assert.equal(r.variables.llm_terms, `${size} 1000 ${name.split(' ')[1]}`);

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
    const handlers = await handlersOf();
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
    const usage = await script('usage'), budgets = await script('budgets');
    const spent = () => budgets().spent('key:alice', Date.now());
    usage().fell('first', 502);
    globalThis.ngx.shared.llm_usage.set('unsaved', 1);
    usage().add('key:alice', 'gpt-4.1', 'requests', 10, 20, 0.5, 0, 'second');
    const file = path.join(directory, 'usage.json');
    const month = new Date().toISOString().slice(0, 7);

    assert.deepEqual(JSON.parse(fs.readFileSync(file, 'utf8')).months[month], {
        'key:alice': {'gpt-4.1': {requests: 1, tokens_in: 10, tokens_out: 20, cost: 0.5}},
    });
    const whole = JSON.parse(fs.readFileSync(file, 'utf8'));
    assert.deepEqual(whole.served, {[month]: {second: {requests: 1, tokens_in: 10, tokens_out: 20, cost: 0.5}}});
    assert.deepEqual(whole.upstreams, {[month]: {first: {502: 1}}});
    globalThis.ngx.shared.llm_usage.entries.clear();
    assert.equal(spent(), 0.5);
    assert.deepEqual((await script('kept'))().all(), whole);
    fs.writeFileSync(file, '{');
    globalThis.ngx.shared.llm_usage.entries.clear();
    assert.equal(spent(), 0);
    assert.ok(fs.existsSync(`${file}.damaged`));
    assert.equal(logged.length, 1);
});

test('a file of an earlier version has no use by upstream, and is taken over', async () => {
    const {directory} = edge();
    const month = new Date().toISOString().slice(0, 7);
    fs.writeFileSync(path.join(directory, 'usage.json'), JSON.stringify({months: {[month]: {'key:alice': {m: {requests: 3}}}}}));

    const found = (await script('kept'))().all();

    assert.equal(found.months[month]['key:alice'].m.requests, 3);
    assert.deepEqual([found.upstreams, found.served], [{}, {}]);
});

test('a key with a budget is refused where there is no room to count its costs, and no other one is', async () => {
    const handlers = await handlersOf();
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
    const usage = await script('usage'), budgets = await script('budgets');
    const spent = () => budgets().spent('key:alice', Date.now());
    assert.equal(spent(), 0);
    const incr = shared.llm_usage.incr;
    shared.llm_usage.incr = (key, ...more) => {
        if (!shared.llm_usage.has(key)) {
            throw new Error('no room');
        }
        return incr.call(shared.llm_usage, key, ...more);
    };

    assert.throws(() => usage().add('key:alice', 'gpt-4.1', 'requests', 10, 20, 0.5, 0, 'first'), /no room/);

    assert.equal(spent(), 0.5);
});
