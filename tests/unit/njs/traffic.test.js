// Requests that are counted from the logs of http/traffic.conf (traffic.js).

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';

import {edge, script} from './edge.js';

// The first moment of the first log's turn.
const TURN = 1_796_000_000_000;

async function counting(context, at = TURN) {
    context.mock.timers.enable({apis: ['Date'], now: at});
    const {directory, logged, shared} = edge();
    const logs = ['0', '1'].map((name) => path.join(directory, `traffic_${name}.log`));
    const pid = path.join(directory, 'nginx.pid');
    [...logs, pid].forEach((name) => fs.writeFileSync(name, ''));
    fs.utimesSync(pid, at / 1000 - 30, at / 1000 - 30);
    globalThis.traffic_tables = {
        logs: logs.join(' '),
        pid,
        turn: 5000,
        settled: 2000,
        groups: 'v1 oauth',
        calls: 'token introspection',
        limits: 'rate concurrency',
        statuses: '401 429 499 502 503 504 1xx 2xx 3xx 4xx 5xx none',
        buckets: '0.01 0.1 1',
    };
    const traffic = await script('traffic');
    const shown = () => {
        let text = '';
        traffic.metrics({variables: {connections_writing: '1'}, return: (status, body) => {
            assert.equal(status, 200);
            text = body;
        }});
        return Object.fromEntries(text.split('\n').filter((one) => one !== '' && !one.startsWith('#'))
            .map((one) => one.replace('dify_kit_edge_', '').split(/ (?=[^ ]+$)/)).map(([name, value]) => [name, Number(value)]));
    };
    return {logged, logs, shared, shown, traffic};
}

function line({group = 'v1', status = 200, limit = '', seconds = '0.005', header = '0.005', upstream = '200', sent = 100, received = 50} = {}) {
    return [group, status, limit, seconds, header, upstream, sent, received].join('|') + '\n';
}

test('lines are counted once, and a line that is not complete is left for the next time', async (context) => {
    const {logs, shown, traffic} = await counting(context);
    const whole = line() + line() + line({status: 404, seconds: '0.500'});
    fs.appendFileSync(logs[0], whole + line().slice(0, 9));
    traffic.count();
    traffic.count();
    let found = shown();
    assert.equal(found['requests_total{group="v1",status="2xx"}'], 2);
    assert.equal(found['requests_total{group="v1",status="4xx"}'], 1);

    fs.appendFileSync(logs[0], line().slice(9));
    found = shown();
    assert.equal(found['requests_total{group="v1",status="2xx"}'], 3);
    assert.equal(found['request_duration_seconds_bucket{group="v1",le="0.01"}'], 3);
    assert.equal(found['request_duration_seconds_bucket{group="v1",le="0.1"}'], 3);
    assert.equal(found['request_duration_seconds_bucket{group="v1",le="1"}'], 4);
    assert.equal(found['request_duration_seconds_bucket{group="v1",le="+Inf"}'], 4);
    assert.equal(found['request_duration_seconds_sum{group="v1"}'], 0.515);
    assert.equal(found['sent_bytes_total{group="v1"}'], 400);
    assert.equal(found['received_bytes_total{group="v1"}'], 200);
    assert.equal(found['requests_total{group="oauth",status="2xx"}'], 0, 'a counter begins at 0');
});

test('a log that is larger than a piece is counted as a whole', async (context) => {
    const {logs, shown} = await counting(context);
    fs.appendFileSync(logs[1], Array.from({length: 9000}, (_, number) => line({sent: number})).join(''));
    assert.equal(shown()['requests_total{group="v1",status="2xx"}'], 9000);
});

test('attempts that failed, and a service that was not asked', async (context) => {
    const {logs, shown} = await counting(context);
    fs.appendFileSync(logs[0], line({upstream: '502, 504 : 200', header: '-, 0.004 : 0.050'}) + line({upstream: '500', status: 500})
        + line({status: 429, limit: 'rate', header: '-', upstream: '-'}));
    let found = shown();
    assert.equal(found['upstream_failures_total{group="v1",status="502"}'], 1);
    assert.equal(found['upstream_failures_total{group="v1",status="504"}'], 1);
    assert.equal(found['upstream_failures_total{group="v1",status="5xx"}'], 1);
    assert.equal(found['limited_requests_total{group="v1",limit="rate"}'], 1);
    assert.equal(found['upstream_header_seconds_count{group="v1"}'], 2);
    assert.equal(found['upstream_header_seconds_sum{group="v1"}'], 0.059);
    assert.equal(found['request_duration_seconds_count{group="v1"}'], 3);

    fs.appendFileSync(logs[0], line({status: 503, header: '-', upstream: '-'}) + line({status: 404, header: '', upstream: ''}));
    found = shown();
    assert.equal(found['upstream_failures_total{group="v1",status="502"}'], 2, 'a service without an address');
    assert.equal(found['upstream_header_seconds_count{group="v1"}'], 2);
});

test('calls of the gateway: a request for a token is one of its group, an introspection of none', async (context) => {
    const {logs, shown} = await counting(context);
    fs.appendFileSync(logs[0], line({group: 'oauth@token', status: 401}) + line({group: '@introspection'}));
    const found = shown();
    assert.equal(found['gateway_calls_total{call="token",status="401"}'], 1);
    assert.equal(found['gateway_calls_total{call="introspection",status="2xx"}'], 1);
    assert.equal(found['requests_total{group="oauth",status="401"}'], 1);
    assert.equal(Object.entries(found).filter(([name]) => name.startsWith('requests_total')).reduce((sum, [, value]) => sum + value, 0), 1);
});

test('a log is emptied in the turn of the other one, after its last lines are written', async (context) => {
    const {logs, shown, traffic} = await counting(context);
    logs.forEach((name) => fs.appendFileSync(name, line()));
    const sizes = [];
    for (let second = 0; second < 20; second++) {
        traffic.count();
        sizes.push(logs.map((name) => fs.statSync(name).size > 0 ? 1 : 0).join(''));
        context.mock.timers.tick(1000);
    }
    // The second log's turn before this one is over as well.
    assert.deepEqual(sizes.slice(0, 8), ['11', '11', '10', '10', '10', '10', '10', '00']);
    fs.appendFileSync(logs[0], line());
    assert.equal(shown()['requests_total{group="v1",status="2xx"}'], 3);
});

test('what another nginx has left is not counted, and one worker counts at a time', async (context) => {
    const {logged, logs, shared, shown, traffic} = await counting(context);
    fs.appendFileSync(logs[0], line());
    fs.utimesSync(logs[0], TURN / 1000 - 60, TURN / 1000 - 60);
    traffic.count();
    fs.appendFileSync(logs[0], line());
    shared.traffic.set('taken', TURN);
    assert.equal(shown()['requests_total{group="v1",status="2xx"}'], 0);
    context.mock.timers.tick(10_001);
    assert.equal(shown()['requests_total{group="v1",status="2xx"}'], 1, 'the worker that began has ended');
    assert.equal(shown()['start_timestamp_seconds'], TURN / 1000 - 30);
    assert.deepEqual(logged, []);
});

test('the last minutes are those, and older ones are forgotten', async (context) => {
    const {logs, shared, shown} = await counting(context);
    fs.appendFileSync(logs[0], line() + line({status: 503}));
    assert.equal(shown()['recent_requests{status="503"}'], 1);
    context.mock.timers.tick(4 * 60_000);
    fs.appendFileSync(logs[0], line());
    let found = shown();
    assert.equal(found['recent_requests{status="2xx"}'], 2);
    assert.ok(found['recent_seconds'] >= 240 && found['recent_seconds'] <= 300);
    context.mock.timers.tick(120_000);
    fs.appendFileSync(logs[0], line());
    found = shown();
    assert.equal(found['recent_requests{status="2xx"}'], 2);
    assert.equal(found['recent_requests{status="503"}'], 0);
    assert.equal(found['requests_total{group="v1",status="503"}'], 1);
    assert.equal(shared.traffic.keys().filter((key) => key.startsWith('minute ')).length, 2);
});

test('an error is logged and ends nothing', async (context) => {
    const {logged, logs, shown, shared} = await counting(context);
    fs.appendFileSync(logs[1], line());
    fs.rmSync(logs[0]);
    assert.equal(shown()['requests_total{group="v1",status="2xx"}'], 0);
    assert.match(logged[0], /^error: traffic: requests cannot be counted: /);
    assert.equal(shared.traffic.has('taken'), false);
});
