// What was counted, for `dify-kit usage` and for Prometheus. Imported where it is asked for only: what a module has is made
// for each request.

import kept from './kept.js';

// Of the timer, in one worker.
function save() {
    const counters = kept().load();
    if (counters.get('unsaved')) {
        kept().write();
        // Only this month is counted; what is older is in the file by now.
        const now = kept().month();
        counters.keys(100000).forEach((key) => {
            if (/^\d{4}-\d{2} /.test(key) && !key.startsWith(now)) {
                counters.delete(key);
            }
        });
    }
}

function report(r) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify(kept().all()));
}

// Forget what a caller used this month, for `dify-kit usage reset`: its numbers and its budget begin again.
function reset(r) {
    const caller = r.args.caller || '', counters = kept().load(), now = kept().month();
    if (r.method !== 'POST' || !/^[A-Za-z0-9:._@/-]{1,128}$/.test(caller)) {
        r.return(400, '{}');
        return;
    }
    const own = counters.keys(100000).filter((key) => key === `${now} ${caller}` || key.startsWith(`${now} ${caller} `));
    own.forEach((key) => counters.delete(key));
    kept().write();
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify({month: now, caller, counters: own.length}));
}

// Made when it is asked for: what stands outside of functions is run for every request.
function described() {
    return [
        ['dify_kit_llm_requests_total', 'Answered requests', 'requests'],
        ['dify_kit_llm_failed_requests_total', 'Requests that no upstream answered well', 'failed'],
        ['dify_kit_llm_estimated_requests_total', 'Requests whose tokens are estimated', 'estimated'],
        ['dify_kit_llm_input_tokens_total', 'Input tokens', 'tokens_in'],
        ['dify_kit_llm_output_tokens_total', 'Output tokens', 'tokens_out'],
        ['dify_kit_llm_cost_dollars_total', 'Cost in US dollars', 'cost'],
    ];
}

function ofUpstreams() {
    return [
        ['dify_kit_llm_upstream_requests_total', 'Requests that an upstream served', 'requests'],
        ['dify_kit_llm_upstream_input_tokens_total', 'Input tokens of an upstream', 'tokens_in'],
        ['dify_kit_llm_upstream_output_tokens_total', 'Output tokens of an upstream', 'tokens_out'],
        ['dify_kit_llm_upstream_cost_dollars_total', 'Cost of an upstream in US dollars', 'cost'],
    ];
}

// Of this month: to Prometheus a counter that begins again is a restart.
function written() {
    const found = kept().all(), now = kept().month();
    const callers = found.months[now] || {}, upstreams = found.upstreams[now] || {};
    const lines = budgets(Object.keys(callers));
    described().forEach((series) => {
        lines.push(`# HELP ${series[0]} ${series[1]}, this month.`, `# TYPE ${series[0]} counter`);
        Object.keys(callers).sort().forEach((caller) => {
            Object.keys(callers[caller]).sort().forEach((model) => {
                const value = callers[caller][model][series[2]] || 0;
                lines.push(`${series[0]}{caller="${caller}",model="${model}"} ${value}`);
            });
        });
    });
    const served = found.served[now] || {};
    ofUpstreams().forEach((series) => {
        lines.push(`# HELP ${series[0]} ${series[1]}, this month.`, `# TYPE ${series[0]} counter`);
        Object.keys(served).sort().forEach((upstream) => {
            lines.push(`${series[0]}{upstream="${upstream}"} ${served[upstream][series[2]] || 0}`);
        });
    });
    const failures = 'dify_kit_llm_upstream_failures_total';
    lines.push(`# HELP ${failures} Failures of upstreams by status, 200: an answer that was none; this month.`);
    lines.push(`# TYPE ${failures} counter`);
    Object.keys(upstreams).sort().forEach((upstream) => {
        Object.keys(upstreams[upstream]).sort().forEach((status) => {
            lines.push(`${failures}{upstream="${upstream}",status="${status}"} ${upstreams[upstream][status]}`);
        });
    });
    return lines;
}

// Callers with a key, and those with a token that used the proxy this month.
function budgets(seen) {
    const name = 'dify_kit_llm_budget_dollars', known = {};
    seen.forEach((caller) => {
        known[caller] = llm_tables.budget;
    });
    Object.keys(llm_secrets.callers).forEach((hash) => {
        known[llm_secrets.callers[hash].name] = llm_secrets.callers[hash].budget;
    });
    const lines = [`# HELP ${name} What a caller may spend in a month, for those with a budget.`, `# TYPE ${name} gauge`];
    Object.keys(known).sort().filter((caller) => known[caller] > 0).forEach((caller) => {
        lines.push(`${name}{caller="${caller}"} ${known[caller]}`);
    });
    return lines;
}

function metrics(r) {
    r.return(200, written().join('\n') + '\n');
}

export default {metrics, report, reset, save, written};
