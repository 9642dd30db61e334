// A request that waits for the owner of the LLM proxy's counts (owner.js).

import assert from 'node:assert/strict';
import test from 'node:test';

import {edge, script} from './edge.js';

// `statuses` are what looks for the owner find, the last of them from then on.
async function waiting(variables, statuses) {
    edge();
    const owner = await script('owner');
    const seen = {looks: 0, redirected: [], returned: []};
    const r = {
        variables: {owner_hold: '1', owner_unsent: '1', ...variables},
        internalRedirect: (place) => seen.redirected.push(place),
        return: (status) => seen.returned.push(status),
        subrequest: async () => ({status: statuses[Math.min(seen.looks++, statuses.length - 1)]}),
    };
    const began = Date.now();
    await owner.wait(r);
    return {...seen, milliseconds: Date.now() - began, variables: r.variables};
}

test('it is sent once the owner answers', async () => {
    const seen = await waiting({}, [502, 502, 204]);
    assert.deepEqual([seen.looks, seen.redirected, seen.returned], [3, ['@llm_owner'], []]);
});

test('what was sent is not sent again', async () => {
    for (const status of ['503', '504']) {
        const seen = await waiting({owner_unsent: '', owner_failure: status}, [204]);
        assert.deepEqual([seen.looks, seen.redirected, seen.returned], [0, [], [Number(status)]]);
    }
});

test('it waits for so long and no longer', async () => {
    const seen = await waiting({}, [502]);
    assert.deepEqual([seen.redirected, seen.returned], [[], [503]]);
    assert.ok(seen.looks > 1);
    assert.ok(seen.milliseconds >= 900);
});

test('the time begins with the first failure, and an owner that comes and goes ends it', async () => {
    const late = await waiting({owner_waits_since: String(Date.now() - 5000)}, [204]);
    assert.deepEqual([late.looks, late.returned], [0, [503]]);

    let variables = {};
    for (let round = 0; round < 4; round++) {
        const seen = await waiting(variables, [204]);
        assert.deepEqual(seen.redirected, ['@llm_owner']);
        variables = {...seen.variables, owner_waits_since: ''};
    }
    assert.deepEqual((await waiting(variables, [204])).returned, [503]);
});
