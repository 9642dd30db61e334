// The counters of the LLM proxy on disk: taken over after a start, saved by a timer, told as a whole.

import fs from 'fs';

function kept() {
    function month() {
        return new Date().toISOString().slice(0, 7);
    }

    function file() {
        return `${llm_tables.state}/usage.json`;
    }

    // {months, upstreams, served}: month -> caller -> model -> field -> number, month -> upstream -> status -> failures, and
    // month -> upstream -> field -> number.
    function stored() {
        try {
            const found = JSON.parse(fs.readFileSync(file(), 'utf8'));
            return {months: found.months, upstreams: found.upstreams || {}, served: found.served || {}};
        } catch (e) {
            if (e.code !== 'ENOENT') {
                ngx.log(ngx.ERR, `llm: ${file()} cannot be read and is put aside: ${e.message}`);
                fs.renameSync(file(), `${file()}.damaged`);
            }
            return {months: {}, upstreams: {}, served: {}};
        }
    }

    // After a start the counters begin where the file ends. Exactly one worker takes it over. Returns the counters.
    function load() {
        const counters = ngx.shared.llm_usage;
        if (!counters.has('loaded') && counters.add('loaded', 1)) {
            // It has a place as long as the zone has one.
            counters.add('unsaved', 0);
            takeOver(counters);
        }
        return counters;
    }

    function takeOver(counters) {
        const fields = ['requests', 'failed', 'tokens_in', 'tokens_out', 'cost', 'estimated'];
        const now = month(), found = stored(), callers = found.months[now] || {};
        [['@', found.upstreams[now] || {}], ['>', found.served[now] || {}]].forEach((one) => {
            Object.keys(one[1]).forEach((upstream) => {
                Object.keys(one[1][upstream]).forEach((field) => {
                    counters.incr(`${now} ${one[0]}${upstream} ${field}`, one[1][upstream][field], 0);
                });
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
            const found = {}, upstreams = {}, served = {};
            load().items(100000).forEach((item) => {
                const parts = item[0].split(' ');
                if (parts.length === 3) {
                    const kind = parts[1][0] === '>' ? served : upstreams, name = parts[1].slice(1);
                    const own = kind[parts[0]] = kind[parts[0]] || {};
                    const fields = own[name] = own[name] || {};
                    fields[parts[2]] = item[1];
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
            return {months: found, upstreams, served};
        }

        const old = stored(), now = live(), current = month();
        // What was reset this month is not in the counters any more.
        if (old.months[current]) {
            old.months[current] = {};
        }
        return {
            months: Object.assign(old.months, now.months),
            upstreams: Object.assign(old.upstreams, now.upstreams),
            served: Object.assign(old.served, now.served),
        };
    }

    function write() {
        const counters = load();
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

    return {all, load, month, write};
}

export default kept;
