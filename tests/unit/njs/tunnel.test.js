// The way through a proxy: what tunnel.js asks it, what it keeps, and what it takes for an answer.

import assert from 'node:assert/strict';
import test, {beforeEach, mock} from 'node:test';

import {script} from './edge.js';

// A clock that a test moves. One whose handler threw keeps the handler.
function clock() {
    mock.timers.reset();
    mock.timers.enable({apis: ['setTimeout']});
}

beforeEach(clock);

// A session of nginx's stream module, as far as the script uses it.
class Session {
    constructor(variables) {
        this.variables = {
            llm_target: 'llm.example:443', llm_proxy: 'proxy.example:3128', llm_kept: '65536', session_time: '0.002', ...variables,
        };
        this.handlers = {};
        this.up = [];
        this.down = [];
    }

    on(event, handler) {
        this.handlers[event] = handler;
    }

    off(event) {
        delete this.handlers[event];
    }

    // Bytes that a side sent: to the script while it listens, else to the other side.
    came(event, text, last = false) {
        const [own, other] = event === 'upstream' ? [this.up, this.down] : [this.down, this.up];
        this.send = (data) => own.push(String(data));
        this.sendUpstream = (data) => this.up.push(String(data));
        assert.notEqual(own, other);
        if (this.handlers[event]) {
            this.handlers[event](Buffer.from(text), {last});
        } else {
            own.push(text);
        }
    }
}

async function opened(authorization = '', variables = {}) {
    globalThis.llm_tunnel = {authorization};
    const s = new Session(variables);
    (await script('tunnel')).open(s);
    return s;
}

test('the client waits until the tunnel is open', async () => {
    const s = await opened();

    s.came('upstream', 'hello ');
    s.came('upstream', 'world');
    assert.deepEqual(s.up, ['CONNECT llm.example:443 HTTP/1.1\r\nHost: llm.example:443\r\n\r\n']);

    s.came('downstream', 'HTTP/1.1 200 Connection established\r\n\r\n');
    assert.deepEqual(s.up.slice(1), ['hello world']);
    assert.deepEqual(s.down, []);

    s.came('upstream', 'more');
    s.came('downstream', 'answer');
    assert.deepEqual(s.up.slice(2), ['more']);
    assert.deepEqual(s.down, ['answer']);
});

test('a user name and a password are sent to the proxy', async () => {
    const s = await opened('Basic a2l0OnNlY3JldA==');

    s.came('upstream', 'x');

    assert.equal(s.up[0].split('\r\n')[2], 'Proxy-Authorization: Basic a2l0OnNlY3JldA==');
});

test('the head may come in pieces, and bytes of the server with its end', async () => {
    const s = await opened();
    s.came('upstream', 'x');

    for (const piece of ['HTTP/1.', '0 200 OK\r\nVia: a\r', '\n\r', '\nearly bytes']) {
        s.came('downstream', piece);
    }

    assert.deepEqual(s.down, ['early bytes']);
    assert.deepEqual(s.up.slice(1), ['x']);
});

test('another status ends the connection, with the line of the proxy', async () => {
    for (const line of ['HTTP/1.1 407 Proxy Authentication Required', 'HTTP/1.1 503 Service Unavailable', 'SSH-2.0-server', 'HTTP/1.1 2000 x']) {
        const s = await opened('Basic c2VjcmV0');
        s.came('upstream', 'x');

        assert.throws(
            () => s.came('downstream', `${line}\r\n\r\n<html>`),
            {message: `no tunnel to llm.example:443 through proxy.example:3128: ${line}`},
        );
        assert.deepEqual(s.up.length, 1);
        assert.deepEqual(s.down, []);
    }
});

test('a proxy that closes, or sends no end of a head, ends the connection', async () => {
    const closing = await opened();
    closing.came('upstream', 'x');
    assert.throws(() => closing.came('downstream', 'HTTP/1.1 200', true), /closed the connection/);

    const endless = await opened();
    endless.came('upstream', 'x');
    assert.throws(() => endless.came('downstream', 'x'.repeat(16385)), /not one of a proxy/);
});

test('what is kept of the client is limited', async () => {
    const s = await opened();

    assert.throws(() => s.came('upstream', 'x'.repeat(65537)), /sends too much/);
});

test('a whole request without TLS is kept', async () => {
    const s = await opened('', {llm_kept: String(4 * 1024 * 1024 + 65536)});
    const pieces = Array.from({length: 200}, (_, index) => String(index % 10).repeat(16384));

    pieces.forEach((piece) => s.came('upstream', piece));
    s.came('downstream', 'HTTP/1.1 200 OK\r\n\r\n');

    assert.equal(s.up[1], pieces.join(''));
});

test('a proxy that does not answer ends the connection', async () => {
    for (const [begun, left] of [['0.002', 3998], ['3.500', 500], ['9.000', 0]]) {
        clock();
        const s = await opened('', {session_time: begun});
        s.came('upstream', 'x');
        if (left > 0) {
            mock.timers.tick(left - 1);
        }
        assert.throws(() => mock.timers.tick(1), {
            message: 'no tunnel to llm.example:443 through proxy.example:3128: the proxy did not answer in time',
        });
    }
});

test('an open tunnel has no such end', async () => {
    const s = await opened();
    s.came('upstream', 'x');
    s.came('downstream', 'HTTP/1.1 200 OK\r\n\r\n');

    mock.timers.tick(600000);
    s.came('downstream', 'answer');

    assert.deepEqual(s.down, ['answer']);
});
