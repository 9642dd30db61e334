// What few requests need: tokens of OAuth, the list of models, long bodies, and upstreams that failed. $llm_task names
// the function.

import crypto from 'crypto';
import errors from './errors.js';
import routes from './routes.js';
import terms from './terms.js';
import usage from './usage.js';
import usual from './usual.js';

function others() {
    // The gateway's answer about a token of OAuth.
    function token(r) {
        // Subjects of other issuers may be anything; counters, limits and metrics have them as they are, or by a hash.
        function named(client) {
            const plain = /^[A-Za-z0-9._@/-]{1,100}$/.test(client);
            return 'client:' + (plain ? client : crypto.createHash('sha256').update(client).digest('hex').slice(0, 32));
        }

        const told = r.headersOut;
        if (r.status === 401) {
            // nginx passes its challenge on: the response has one, and needs none of the edge's own.
            r.variables.llm_challenge = 'told';
            return;
        }
        if (r.status !== 200) {
            return;
        }
        const scopes = (told['X-Auth-Scopes'] || '').split(' ');
        if (!scopes.includes(llm_tables.scope)) {
            r.variables.llm_challenge = 'scope';
            r.status = 403;
            return;
        }
        r.variables.llm_caller = named(`${told['X-Auth-Tenant']}/${told['X-Auth-Sub']}`);
        r.variables.llm_class = String(llm_tables.class);
        r.variables.llm_budget = String(llm_tables.budget);
        r.variables.llm_models = '';
    }

    function models(r) {
        function described(model) {
            return {id: model, object: 'model', created: 0, owned_by: 'dify-kit'};
        }

        if (r.method !== 'GET' && r.method !== 'HEAD') {
            errors.send(r, 405, 'method_not_allowed', 'Use GET.');
            return;
        }
        const served = Object.keys(llm_tables.chat).concat(Object.keys(llm_tables.embeddings));
        const allowed = r.variables.llm_models;
        const seen = served.filter((model) => allowed === '' || allowed.split(' ').includes(model));
        const one = r.uri.slice('/llm/v1/models'.length + 1);
        r.headersOut['Content-Type'] = 'application/json';
        if (one === '') {
            r.return(200, JSON.stringify({object: 'list', data: seen.map(described)}));
        } else if (seen.includes(one)) {
            r.return(200, JSON.stringify(described(one)));
        } else {
            errors.send(r, 404, 'model_not_found', 'The model is not served here.', 'model');
        }
    }

    // Count that an upstream failed, and return its status, nginx's own (502, 504) where none came.
    function fell(r, then) {
        const statuses = (r.variables.upstream_status || '').split(/[,:] */);
        const status = Number(statuses[statuses.length - 1]);
        r.warn(`llm: upstream ${r.variables.llm_upstream} failed with ${status}${then}`);
        usage().fell(r.variables.llm_upstream, status);
        return status;
    }

    function next(r) {
        const vars = r.variables, to = routes(null);
        fell(r, ', trying the next');
        const kind = vars.llm_kind, index = Number(vars.llm_next);
        const targets = llm_tables[kind][vars.llm_model];
        if (vars.llm_rest) {
            to.send(r, kind, targets, index, null);
            return;
        }
        const asked = usual(r);
        if (asked !== null) {
            to.send(r, kind, targets, index, asked);
            return;
        }
        to.carefully(r, (found) => to.send(r, kind, targets, index, found));
    }

    // The caller's rate is used up, which shows before the upstream is asked.
    function refused(r) {
        const vars = r.variables;
        if (vars.limit_req_status !== 'REJECTED') {
            // An upstream has this status, too.
            failed(r);
            return;
        }
        terms.settled(vars.llm_caller, vars.llm_model, vars.llm_terms);
        r.return(429);
    }

    function failed(r) {
        const status = fell(r, '');
        if (status === 401 || status === 403) {
            // The caller's own credential is fine.
            errors.send(r, 502, 'upstream_denied', "The upstream refuses the server's key.", null, true);
        } else if (status === 504 || status === 524) {
            errors.send(r, 504, 'upstream_timeout', 'The upstream did not answer in time.');
        } else if (status === 503) {
            errors.send(r, 503, 'upstream_unavailable', 'The upstream is not available now.');
        } else {
            errors.send(r, 502, 'upstream_failed', 'The upstream cannot be reached, or failed.');
        }
    }

    // At @llm_long.
    function long(r) {
        routes(null).route(r, r.variables.llm_kind);
    }

    return {failed, long, models, next, refused, token};
}

export default others;
