// What callers used: counters of all workers, by month (UTC), caller and model; kept on disk, told as JSON and to
// Prometheus. A key is "<month> <caller> <model> <field>".

import fs from 'fs';

// What stands outside of functions is run for every request, and each function is made for it: those that few requests
// need are inside of another one.

function month(moment) {
    return moment.toISOString().slice(0, 7);
}

// After a start the counters begin where the file ends. Exactly one worker takes it over.
function loaded() {
    const counters = ngx.shared.llm_usage;
    if (!counters.has('loaded') && counters.add('loaded', 1)) {
        // It has a place as long as the zone has one.
        counters.add('unsaved', 0);
        kept().load(counters);
    }
    return counters;
}

// Dollars of this month; null where the zone has no room for the counter of another caller. One that is there needs no
// room to grow.
function spent(caller) {
    const counters = loaded(), own = `${month(new Date())} ${caller}`, dollars = counters.get(own);
    if (dollars !== undefined) {
        return dollars;
    }
    try {
        counters.add(own, 0);
    } catch (e) {
        ngx.log(ngx.ERR, `llm: no room for the counter of ${caller}: ${e.message}`);
        return null;
    }
    return counters.get(own);
}

// --- reservations ------------------------------------------------------------------------------------------------

// What requests under way may cost, by caller and by the hour in which they began. A reservation that is lost with its
// worker is forgotten with its hour.

// Returns the hour, for release(), and what is reserved besides, which may be of the hour before.
function reserve(caller, dollars) {
    const now = Date.now(), held = ngx.shared.llm_reserved;
    const hour = Math.floor(now / 3600000);
    let others = held.incr(`${caller} ${hour}`, dollars, 0) - dollars;
    if (now % 3600000 < 1200000) {
        others += held.get(`${caller} ${hour - 1}`) || 0;
    }
    return [String(hour), others];
}

function release(caller, dollars, hour) {
    ngx.shared.llm_reserved.incr(`${caller} ${hour}`, -dollars, 0);
}

// The same for a request that was admitted, with its terms: the size of its body, tokens of it and of its answer at most,
// dollars, hour.
function settled(vars) {
    const terms = vars.llm_terms.split(' ');
    if (terms[4] !== '') {
        release(vars.llm_caller, Number(terms[3]), terms[4]);
    }
    return terms;
}

// --- counting ----------------------------------------------------------------------------------------------------

// An upstream failed, with this status; 200 for an answer that was none. The key has three parts.
function fell(upstream, status) {
    const counters = ngx.shared.llm_usage;
    counters.incr(`${month(new Date())} @${upstream} ${status}`, 1, 0);
    changed(counters);
}

// One more request, of the kind `requests` or `failed`. Written out, since this is on the way of every request: what is
// 0 is not counted.
function add(caller, model, kind, tokens_in, tokens_out, cost, estimated) {
    const counters = ngx.shared.llm_usage, now = month(new Date());
    const own = `${now} ${caller} ${model} `;
    // First, since spent() made room for it.
    if (cost) {
        counters.incr(`${now} ${caller}`, cost, 0);
    }
    counters.incr(own + kind, 1, 0);
    if (tokens_in) {
        counters.incr(own + 'tokens_in', tokens_in, 0);
    }
    if (tokens_out) {
        counters.incr(own + 'tokens_out', tokens_out, 0);
    }
    if (cost) {
        counters.incr(own + 'cost', cost, 0);
    }
    if (estimated) {
        counters.incr(own + 'estimated', estimated, 0);
    }
    changed(counters);
}

// `unsaved` is the time of the first change since the last save. A worker that is about to end runs no timer: then whoever
// counts saves.
function changed(counters) {
    const since = counters.get('unsaved');
    if (!since) {
        counters.set('unsaved', Date.now());
    } else if (Date.now() - since > 3000 * llm_tables.save_seconds) {
        kept().write(counters);
    }
}

// What lies on disk.
function kept() {
    function file() {
        return `${llm_tables.state}/usage.json`;
    }

    // {months, upstreams}: month -> caller -> model -> field -> number, and month -> upstream -> status -> failures.
    function stored() {
        try {
            const found = JSON.parse(fs.readFileSync(file(), 'utf8'));
            return {months: found.months, upstreams: found.upstreams || {}};
        } catch (e) {
            if (e.code !== 'ENOENT') {
                ngx.log(ngx.ERR, `llm: ${file()} cannot be read and is put aside: ${e.message}`);
                fs.renameSync(file(), `${file()}.damaged`);
            }
            return {months: {}, upstreams: {}};
        }
    }

    function load(counters) {
        const fields = ['requests', 'failed', 'tokens_in', 'tokens_out', 'cost', 'estimated'];
        const now = month(new Date()), found = stored(), callers = found.months[now] || {};
        const upstreams = found.upstreams[now] || {};
        Object.keys(upstreams).forEach((upstream) => {
            Object.keys(upstreams[upstream]).forEach((status) => {
                counters.incr(`${now} @${upstream} ${status}`, upstreams[upstream][status], 0);
            });
        });
        Object.keys(callers).forEach((caller) => {
            Object.keys(callers[caller]).forEach((model) => {
                fields.forEach((field) => {
                    if (callers[caller][model][field]) {
                        counters.incr(`${now} ${caller} ${model} ${field}`, callers[caller][model][field], 0);
                    }
                });
                counters.incr(`${now} ${caller}`, callers[caller][model].cost || 0, 0);
            });
        });
    }

    // That, and what is counted now in place of it.
    function all() {
        function live() {
            const found = {}, upstreams = {};
            loaded().items(100000).forEach((item) => {
                const parts = item[0].split(' ');
                if (parts.length === 3) {
                    const failures = upstreams[parts[0]] = upstreams[parts[0]] || {};
                    const statuses = failures[parts[1].slice(1)] = failures[parts[1].slice(1)] || {};
                    statuses[parts[2]] = item[1];
                    return;
                }
                if (parts.length !== 4) {
                    return;
                }
                const callers = found[parts[0]] = found[parts[0]] || {};
                const models = callers[parts[1]] = callers[parts[1]] || {};
                const fields = models[parts[2]] = models[parts[2]] || {};
                fields[parts[3]] = item[1];
            });
            return {months: found, upstreams};
        }

        const old = stored(), now = live(), current = month(new Date());
        // What was reset this month is not in the counters any more.
        if (old.months[current]) {
            old.months[current] = {};
        }
        return {
            months: Object.assign(old.months, now.months),
            upstreams: Object.assign(old.upstreams, now.upstreams),
        };
    }

    function write(counters) {
        counters.set('unsaved', 0);
        const draft = `${file()}.${process.pid}`;
        try {
            fs.writeFileSync(draft, JSON.stringify(all()), {mode: 0o600});
            fs.renameSync(draft, file());
        } catch (e) {
            counters.set('unsaved', Date.now());
            ngx.log(ngx.ERR, `llm: usage cannot be saved: ${e.message}`);
        }
    }

    return {all, load, write};
}

export default {add, fell, kept, loaded, month, release, reserve, settled, spent};
