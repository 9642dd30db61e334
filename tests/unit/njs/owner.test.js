// Waiting for the owner of the LLM proxy's counts (owner.js).

import assert from 'node:assert/strict';
import test from 'node:test';

import {edge, script} from './edge.js';

// `statuses` are what looks for the owner find, the last of them from then on.
async function waiting(statuses) {
    edge();
    const owner = await script('owner');
    const seen = {looks: 0, returned: []};
    const r = {
        variables: {owner_hold: '1', owner_found: '418'},
        return: (status) => seen.returned.push(status),
        subrequest: async () => ({status: statuses[Math.min(seen.looks++, statuses.length - 1)]}),
    };
    const began = Date.now();
    await owner.wait(r);
    return {...seen, milliseconds: Date.now() - began};
}

test('it ends once the owner answers', async () => {
    const seen = await waiting([502, 502, 204]);
    assert.deepEqual([seen.looks, seen.returned], [3, [418]]);
});

test('it lasts for so long and no longer', async () => {
    const seen = await waiting([502]);
    assert.deepEqual(seen.returned, [503]);
    assert.ok(seen.looks > 1);
    assert.ok(seen.milliseconds >= 900);
});
