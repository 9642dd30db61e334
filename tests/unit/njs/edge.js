// What nginx gives to its scripts, for node: a request, shared dictionaries, and the tables that the kit renders.
//
// tests/unit/test_njs.py renders them; EDGE_TABLES names the file.

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {createHash} from 'node:crypto';

const SCRIPTS = new URL('../../../templates/nginx/njs/', import.meta.url);
const TABLES = fs.readFileSync(process.env.EDGE_TABLES, 'utf8');
const DIRECTORY = fs.mkdtempSync(path.join(os.tmpdir(), 'njs-'));
let loads = 0;

// As js_preload_object has it: frozen, and without a prototype.
function frozen(value) {
    if (value === null || typeof value !== 'object') {
        return value;
    }
    Object.values(value).forEach(frozen);
    return Object.freeze(Object.setPrototypeOf(value, null));
}

class Dictionary {
    constructor() {
        this.entries = new Map();
    }

    has(key) {
        return this.entries.has(key);
    }

    get(key) {
        return this.entries.get(key);
    }

    set(key, value) {
        this.entries.set(key, value);
        return this;
    }

    add(key, value) {
        const added = !this.entries.has(key);
        if (added) {
            this.entries.set(key, value);
        }
        return added;
    }

    incr(key, delta, initial) {
        const value = (this.entries.get(key) ?? initial) + delta;
        this.entries.set(key, value);
        return value;
    }

    delete(key) {
        return this.entries.delete(key);
    }

    keys() {
        return [...this.entries.keys()];
    }

    items() {
        return [...this.entries.entries()];
    }
}

export const KEY = `dkp_${'k'.repeat(43)}`;

// Put everything that is global to the scripts in place. Returns it.
export function edge(changes = {}) {
    fs.readdirSync(DIRECTORY).forEach((name) => fs.rmSync(path.join(DIRECTORY, name)));
    globalThis.llm_tables = frozen({...JSON.parse(TABLES), state: DIRECTORY, ...changes.tables});
    globalThis.llm_secrets = frozen({
        keys: {first: 'sk-first', second: 'sk-second'},
        hidden: '',
        callers: {
            [createHash('sha256').update(KEY).digest('hex')]: {
                name: 'key:alice', expires: 0, class: 0, budget: 1, models: '', internal: false, ...changes.caller,
            },
        },
        ...changes.secrets,
    });
    const logged = [];
    globalThis.ngx = {
        ERR: 'error',
        WARN: 'warning',
        log: (level, text) => logged.push(`${level}: ${text}`),
        fetch: changes.fetch,
        shared: {
            llm_usage: new Dictionary(),
            llm_reserved: new Dictionary(),
            llm_down: new Dictionary(),
            starting: new Dictionary(),
            traffic: new Dictionary(),
        },
    };
    return {directory: DIRECTORY, logged, shared: globalThis.ngx.shared};
}

// A script with state of its own, as each location of each request has it. What it imports has none.
export async function script(name) {
    return (await import(new URL(`${name}.js?${loads++}`, SCRIPTS).href)).default;
}

// What nginx calls, by its name in njs/llm.js, or by that of a task of njs/others.js.
export async function handlersOf() {
    const found = {...await script('llm')};
    for (const task of ['failed', 'long', 'models', 'next', 'refused', 'token']) {
        found[task] = (r) => {
            r.variables.llm_task = task;
            return found.other(r);
        };
    }
    return found;
}

// A request at the location of a handler. `variables` are those of nginx.
export function request({body = '', method = 'POST', uri = '/llm/v1/chat/completions', authorization = `Bearer ${KEY}`, variables = {}, args = {}} = {}) {
    const bytes = Buffer.from(body);
    const r = {
        args,
        method,
        uri,
        status: 200,
        headersIn: {Authorization: authorization},
        headersOut: {},
        requestBuffer: bytes.length > 0 ? bytes : undefined,
        // What a script sets is text, or bytes.
        variables: new Proxy({
            server_port: '8080',
            content_length: String(bytes.length),
            llm_strings: '1',
            request_body_file: '',
            ...variables,
        }, {
            set: (all, name, value) => {
                all[name] = Buffer.isBuffer(value) ? value : String(value);
                return true;
            },
        }),
        rawVariables: {request_body: bytes, ...Object.fromEntries(Object.entries(variables).map(([name, text]) => [name, Buffer.from(text)]))},
        sent: [],
        answered: null,
        redirected: '',
        logged: [],
        done: () => undefined,
        error: (text) => r.logged.push(text),
        warn: (text) => r.logged.push(text),
        internalRedirect: (to) => {
            r.redirected = to;
        },
        return: (status, text) => {
            r.answered = {status, text};
        },
        sendBuffer: (data) => r.sent.push(Buffer.from(data)),
    };
    return r;
}

// Wait until a handler has answered or gone on.
export async function settled(r) {
    for (let turn = 0; turn < 1000; turn++) {
        if (r.answered !== null || r.redirected !== '') {
            return;
        }
        await new Promise((resolve) => {
            setTimeout(resolve, 1);
        });
    }
    throw new Error('the handler neither answered nor went on');
}
