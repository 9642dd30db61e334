// Requests by route group: counted from the logs of http/traffic.conf, and told to Prometheus. Tables come from
// traffic/tables.json.
//
// Counters are in `ngx.shared.traffic`, for all workers and across reloads. Keys are words: "requests <group> <status>".

import fs from 'fs';
import report from './report.js';

// A part of a log: what a script reads stays in memory until it ends.
const PIECE = 65536;
// A worker counts for this long, and serves requests in between. A log that is this large is counted as a whole.
const PATIENCE = 25;
const LARGE = 16777216;
const MINUTES = 5;

// Of the timer, in one worker, and of a request for metrics.
function count() {
    const counters = ngx.shared.traffic, now = Date.now(), taken = counters.get('taken');
    if (taken !== undefined && now - taken > 10000) {
        // Its worker ended.
        counters.delete('taken');
    }
    if (!counters.add('taken', now)) {
        return;
    }
    try {
        begin(counters);
        const found = {};
        traffic_tables.logs.split(' ').forEach((path, index) => take(counters, path, index, now, found));
        apply(counters, found, Math.floor(now / 60000));
    } catch (e) {
        ngx.log(ngx.ERR, `traffic: requests cannot be counted: ${e.message}`);
    }
    counters.delete('taken');
}

// Once for each nginx. What another one has left in the logs is not counted again.
function begin(counters) {
    if (counters.get('since') !== undefined) {
        return;
    }
    const since = fs.statSync(traffic_tables.pid).mtimeMs;
    traffic_tables.logs.split(' ').forEach((path) => {
        if (fs.statSync(path).mtimeMs < since) {
            fs.writeFileSync(path, '');
        }
    });
    counters.set('since', since / 1000);
}

// Add the new lines of a log to `found`: line, in hexadecimal, -> times. That is the fastest way to text that njs has, and all
// lines of a busy moment are alike.
function take(counters, path, index, began, found) {
    const key = `at ${index}`, file = fs.openSync(path, 'r');
    let at = counters.get(key) || 0, size = 0;
    try {
        size = fs.fstatSync(file).size;
        const until = size > LARGE ? Infinity : began + PATIENCE;
        while (at < size && Date.now() < until) {
            const buffer = Buffer.alloc(Math.min(size - at, PIECE));
            const length = fs.readSync(file, buffer, 0, buffer.length, at);
            // A line may still be written.
            const end = length === 0 ? 0 : buffer.lastIndexOf(10, length - 1) + 1;
            if (end === 0) {
                break;
            }
            const lines = buffer.slice(0, end).toString('hex').split('0a'), last = lines.length - 1;
            for (let number = 0; number < last; number++) {
                const line = lines[number];
                found[line] = (found[line] || 0) + 1;
            }
            at += end;
            counters.set(key, at);
        }
    } finally {
        fs.closeSync(file);
    }
    if (at > 0 && at === size && settled(index)) {
        fs.writeFileSync(path, '');
        counters.set(key, 0);
    }
}

// Whether all lines of a log's turn are written and its next turn is not near.
function settled(index) {
    const turn = traffic_tables.turn, since = (Date.now() + (2 - index) * turn) % (2 * turn);
    return since >= turn + traffic_tables.settled && since < 2 * turn - 500;
}

// --- what a line says --------------------------------------------------------------------------------------------

function apply(counters, found, minute) {
    const sums = {}, bounds = traffic_tables.buckets.split(' ').map(Number);

    function add(key, value) {
        sums[key] = (sums[key] || 0) + value;
    }

    function observe(name, group, seconds, times) {
        let place = 0;
        while (place < bounds.length && seconds > bounds[place]) {
            place++;
        }
        add(`${name} ${group} ${place}`, times);
        add(`${name} ${group} sum`, seconds * times);
    }

    Object.keys(found).forEach((line) => {
        const parts = Buffer.from(line, 'hex').toString().split('|'), times = found[line];
        const status = statusOf(parts[1]), names = parts[0].split('@'), group = names[0];
        if (names.length === 2) {
            add(`calls ${names[1]} ${status}`, times);
        }
        if (group === '') {
            return;
        }
        add(`requests ${group} ${status}`, times);
        add(`minute ${minute} ${status}`, times);
        if (parts[2] !== '') {
            add(`limited ${group} ${parts[2]}`, times);
        }
        observe('seconds', group, Number(parts[3]), times);
        const attempts = parts[4].split(/[,: ]+/).filter((one) => /^\d/.test(one));
        if (attempts.length > 0) {
            observe('upstream', group, attempts.reduce((sum, one) => sum + Number(one), 0), times);
        }
        const asked = parts[5].split(/[,: ]+/).filter((one) => /^\d/.test(one));
        // Without a service to ask (its name has no address, or it has not started), nginx answers by itself.
        const failed = asked.length === 0 && /^50[234]$/.test(parts[1]) ? ['502'] : asked.filter((one) => /^5/.test(one));
        failed.forEach((one) => add(`failures ${group} ${statusOf(one)}`, times));
        add(`sent ${group}`, Number(parts[6]) * times);
        add(`received ${group}`, Number(parts[7]) * times);
    });
    Object.keys(sums).forEach((key) => {
        if (key.startsWith('minute ') && !counters.has(key)) {
            forget(counters, minute);
        }
        counters.incr(key, sums[key], 0);
    });
}

function statusOf(code) {
    return ` ${traffic_tables.statuses} `.indexOf(` ${code} `) >= 0 ? code : /^[1-5]/.test(code) ? `${code[0]}xx` : 'none';
}

function forget(counters, minute) {
    counters.keys(10000).forEach((key) => {
        if (key.startsWith('minute ') && Number(key.split(' ')[1]) <= minute - MINUTES) {
            counters.delete(key);
        }
    });
}

// --- for Prometheus ----------------------------------------------------------------------------------------------

function metrics(r) {
    count();
    const lines = described(r.variables);
    r.return(200, lines.concat(r.variables.metrics_of_llm ? report.written() : []).join('\n') + '\n');
}

function described(vars) {
    const values = {}, lines = [], tables = traffic_tables;
    ngx.shared.traffic.items(10000).forEach((item) => {
        values[item[0]] = item[1];
    });
    const groups = tables.groups.split(' '), statuses = tables.statuses.split(' '), bounds = tables.buckets.split(' ');

    function family(name, type, help) {
        lines.push(`# HELP dify_kit_edge_${name} ${help}`, `# TYPE dify_kit_edge_${name} ${type}`);
    }

    function sample(name, labels, value) {
        lines.push(`dify_kit_edge_${name}${labels} ${value}`);
    }

    // All values of the second label, so that each counter begins at 0.
    function table(name, help, key, firsts, first, seconds, second) {
        family(name, 'counter', help);
        firsts.forEach((one) => seconds.forEach((other) => {
            sample(name, `{${first}="${one}",${second}="${other}"}`, values[`${key} ${one} ${other}`] || 0);
        }));
    }

    function histogram(name, help, key) {
        family(name, 'histogram', help);
        groups.filter((group) => values[`${key} ${group} sum`] !== undefined).forEach((group) => {
            let sum = 0;
            bounds.concat('+Inf').forEach((bound, place) => {
                sum += values[`${key} ${group} ${place}`] || 0;
                sample(`${name}_bucket`, `{group="${group}",le="${bound}"}`, sum);
            });
            sample(`${name}_sum`, `{group="${group}"}`, values[`${key} ${group} sum`].toFixed(3));
            sample(`${name}_count`, `{group="${group}"}`, sum);
        });
    }

    function sizes(name, help, key) {
        family(name, 'counter', help);
        groups.forEach((group) => sample(name, `{group="${group}"}`, values[`${key} ${group}`] || 0));
    }

    table('requests_total', 'Requests that ended, by the status of the response', 'requests', groups, 'group', statuses, 'status');
    table('limited_requests_total', 'Requests that a limit refused, or would refuse without the dry run', 'limited',
        groups, 'group', tables.limits.split(' '), 'limit');
    table('upstream_failures_total', 'Responses of services with 5xx, and requests without one: 502 no service, no connection, or it broke; 504 too late',
        'failures', groups, 'group', ['502', '503', '504', '5xx'], 'status');
    table('gateway_calls_total', 'Requests to the gateway, by the status of the response', 'calls',
        tables.calls.split(' ').filter((call) => call !== ''), 'call', statuses, 'status');
    histogram('request_duration_seconds', 'From the first byte of a request to the last one of its response', 'seconds');
    histogram('upstream_header_seconds', 'Until a service began its response', 'upstream');
    sizes('sent_bytes_total', 'Bytes of responses', 'sent');
    sizes('received_bytes_total', 'Bytes of requests', 'received');
    family('connections', 'gauge', 'Open connections: waiting for a request, reading one, writing a response');
    ['reading', 'writing', 'waiting'].forEach((state) => {
        sample('connections', `{state="${state}"}`, vars[`connections_${state}`] || 0);
    });
    family('start_timestamp_seconds', 'gauge', 'When nginx started: its counters begin there');
    sample('start_timestamp_seconds', '', values.since);
    recent(values, statuses, family, sample);
    return lines;
}

// What the last minutes were, for readers without a database.
function recent(values, statuses, family, sample) {
    const now = Date.now(), first = Math.floor(now / 60000) - MINUTES + 1;
    family('recent_requests', 'gauge', 'Requests that ended in the last minutes');
    statuses.forEach((status) => {
        let sum = 0;
        for (let minute = first; minute < first + MINUTES; minute++) {
            sum += values[`minute ${minute} ${status}`] || 0;
        }
        sample('recent_requests', `{status="${status}"}`, sum);
    });
    family('recent_seconds', 'gauge', 'How long these last minutes are');
    sample('recent_seconds', '', (now / 1000 - Math.max(first * 60, values.since)).toFixed(0));
}

export default {count, metrics};
