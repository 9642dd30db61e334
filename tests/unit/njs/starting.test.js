// Which services start (starting.js).

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';

import {edge, script} from './edge.js';

async function looking(answers) {
    const {directory, shared} = edge({
        fetch: async (url) => {
            if (answers[url] !== true) {
                throw new Error(answers[url]);
            }
        },
    });
    globalThis.starting_services = {directory, addresses: {api: 'api:5001', web: 'web:3000'}};
    const timers = await script('starting');
    const marked = () => ['api', 'web'].filter((name) => fs.existsSync(path.join(directory, `starting_${name}`)));
    return {marked, shared, timers};
}

test('a service starts from a refused connection to its first answer', async () => {
    const answers = {'http://api:5001/health': 'connection refused', 'http://web:3000/health': true};
    const {marked, timers} = await looking(answers);
    await timers.often();
    assert.deepEqual(marked(), ['api']);

    answers['http://api:5001/health'] = 'read timed out';
    await timers.often();
    assert.deepEqual(marked(), ['api'], 'it imports Dify');

    answers['http://api:5001/health'] = true;
    await timers.often();
    assert.deepEqual(marked(), []);

    answers['http://api:5001/health'] = 'read timed out';
    for (let round = 0; round < 20; round++) {
        await timers.often();
    }
    assert.deepEqual(marked(), [], 'one that has answered is slow, and does not start');
});

test('an edge that is new takes one that never answers for starting', async () => {
    const answers = {'http://api:5001/health': 'read timed out', 'http://web:3000/health': true};
    const {marked, timers} = await looking(answers);
    for (let round = 0; round < 7; round++) {
        await timers.often();
    }
    assert.deepEqual(marked(), []);
    await timers.often();
    assert.deepEqual(marked(), ['api']);

    answers['http://api:5001/health'] = true;
    await timers.patiently();
    assert.deepEqual(marked(), []);
});
