// Prints what nginx serves to Prometheus: traffic.js counts the lines of a log, and report.js has the LLM proxy's counters.
//
// tests/unit/served.py runs it, with the tables that the kit renders in TRAFFIC_TABLES and EDGE_TABLES.

import fs from 'node:fs';
import path from 'node:path';

import {edge, script} from './edge.js';

const {directory, shared} = edge({caller: {budget: 10}});
const tables = JSON.parse(process.env.TRAFFIC_TABLES);
tables.logs = tables.logs.split(' ').map((name) => path.join(directory, path.basename(name))).join(' ');
tables.pid = path.join(directory, 'nginx.pid');
globalThis.traffic_tables = Object.freeze(tables);
const lines = [];
tables.groups.split(' ').forEach((group) => {
    lines.push(`${group}|200||0.020|0.010|200|1000|300`, `${group}|429|${tables.limits.split(' ')[0]}|0.001|-|-|200|300`);
    lines.push(`${group}|503||0.002|-|502|200|300`);
});
tables.calls.split(' ').forEach((call) => lines.push(`@${call}|200||0.003|0.002|200|100|200`));
[tables.pid, ...tables.logs.split(' ')].forEach((name) => fs.writeFileSync(name, ''));
fs.appendFileSync(tables.logs.split(' ')[0], lines.join('\n') + '\n');

const month = new Date().toISOString().slice(0, 7);
shared.llm_usage.set('loaded', 1);
['requests', 'failed', 'estimated', 'tokens_in', 'tokens_out', 'cost'].forEach((field, place) => {
    shared.llm_usage.set(`${month} key:alice gpt-4.1 ${field}`, place + 1);
});
shared.llm_usage.set(`${month} @first 503`, 2);
['requests', 'tokens_in', 'tokens_out', 'cost'].forEach((field, place) => {
    shared.llm_usage.set(`${month} >first ${field}`, place + 1);
});

const variables = {metrics_of_llm: '1', connections_reading: '0', connections_writing: '2', connections_waiting: '5'};
(await script('traffic')).metrics({variables, return: (status, text) => process.stdout.write(text)});
