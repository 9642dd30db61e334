// Counters of all workers, by month (UTC): what callers used of each model, what upstreams served, and how they failed.
// Keys are "<month> <caller> <model> <field>", "<month> >upstream <field>" and "<month> @upstream <status>". kept.js has
// them on disk.

import kept from './kept.js';

function usage() {
    // An upstream failed, with this status; 200 for an answer that was none.
    function fell(upstream, status) {
        const counters = ngx.shared.llm_usage, now = new Date().toISOString().slice(0, 7);
        counters.incr(`${now} @${upstream} ${status}`, 1, 0);
        changed(counters);
    }

    // One more request, of the kind `requests` or `failed`, and the upstream that served it, empty for none. Written out,
    // since this is on the way of every request: what is 0 is not counted.
    function add(caller, model, kind, tokens_in, tokens_out, cost, estimated, upstream) {
        const counters = ngx.shared.llm_usage, own = new Date().toISOString().slice(0, 7) + ' ' + caller;
        const served = own + ' ' + model + ' ';
        // First, since budgets.js made room for it.
        if (cost) {
            counters.incr(own, cost, 0);
        }
        counters.incr(served + kind, 1, 0);
        if (tokens_in) {
            counters.incr(served + 'tokens_in', tokens_in, 0);
        }
        if (tokens_out) {
            counters.incr(served + 'tokens_out', tokens_out, 0);
        }
        if (cost) {
            counters.incr(served + 'cost', cost, 0);
        }
        if (estimated) {
            counters.incr(served + 'estimated', estimated, 0);
        }
        if (upstream) {
            serve(counters, upstream, tokens_in, tokens_out, cost);
        }
        changed(counters);
    }

    function serve(counters, upstream, tokens_in, tokens_out, cost) {
        const own = new Date().toISOString().slice(0, 7) + ' >' + upstream + ' ';
        counters.incr(own + 'requests', 1, 0);
        if (tokens_in) {
            counters.incr(own + 'tokens_in', tokens_in, 0);
        }
        if (tokens_out) {
            counters.incr(own + 'tokens_out', tokens_out, 0);
        }
        if (cost) {
            counters.incr(own + 'cost', cost, 0);
        }
    }

    // `unsaved` is the time of the first change since the last save. A worker that is about to end runs no timer: then
    // the request that counts saves.
    function changed(counters) {
        const since = counters.get('unsaved'), now = Date.now();
        if (!since) {
            counters.set('unsaved', now);
        } else if (now - since > 3000 * llm_tables.save_seconds) {
            kept().write();
        }
    }

    return {add, fell};
}

export default usage;
