// Which upstream serves a request, and whether its caller may ask for it.

import budgets from './budgets.js';
import edits from './edits.js';
import errors from './errors.js';
import request from './request.js';
import usual from './usual.js';

// `caller` is what llm_secrets has of it, null where only nginx's variables know it.
function routes(caller) {
    function route(r, kind) {
        const vars = r.variables;
        if (caller === null && !vars.llm_caller) {
            // The location has refused such a request before this.
            r.return(401);
            return;
        }
        if (r.method !== 'POST') {
            errors.send(r, 405, 'method_not_allowed', 'Use POST.');
            return;
        }
        const asked = usual(r);
        if (asked === undefined) {
            vars.llm_kind = kind;
            r.internalRedirect('@llm_long');
            return;
        }
        if (asked !== null) {
            admit(r, kind, asked);
            return;
        }
        carefully(r, (found) => admit(r, kind, found));
    }

    // Go on with what a request asks for that is not of the usual kind, or refuse it.
    function carefully(r, go) {
        function refuse(problem) {
            if (typeof problem.code === 'string' && problem.param !== undefined) {
                errors.send(r, 400, problem.code, problem.message, problem.param);
                return;
            }
            r.error(`llm: a request could not be read: ${problem.message}`);
            errors.send(r, 500, 'internal_error', 'The edge failed.');
        }

        let reading;
        try {
            reading = request(r);
        } catch (e) {
            refuse(e);
            return;
        }
        reading.then(go).catch(refuse);
    }

    function admit(r, kind, asked) {
        const vars = r.variables, model = asked.model, chats = kind === 'chat';
        if (model === '') {
            errors.send(r, 400, 'model_required', 'The body names no model.', 'model');
            return;
        }
        const targets = llm_tables[kind][model];
        if (targets === undefined) {
            errors.send(r, 404, 'model_not_found', 'The model is not served here.', 'model');
            return;
        }
        const allowed = caller === null ? vars.llm_models : caller.models;
        if (allowed !== '' && !allowed.split(' ').includes(model)) {
            errors.send(r, 403, 'model_not_allowed', 'This key may not use the model.', 'model');
            return;
        }
        const output = chats ? asked.answers * (asked.limit || llm_tables.longest[model]) : 0;
        const budget = caller === null ? Number(vars.llm_budget) : caller.budget;
        const hour = budget > 0 ? budgets().reserve(r, model, asked.size, output, budget) : '';
        if (hour === null) {
            return;
        }
        // For the end of the request. Added up, which costs less than a template.
        vars.llm_terms = asked.size + ' ' + output + ' ' + hour;
        vars.llm_kind = kind;
        vars.llm_model = model;
        // A stream tells its usage only when it is asked to. A caller that did not ask is not shown it.
        const hides = chats && asked.stream && !asked.shows;
        if (chats && asked.stream) {
            vars.llm_mode = hides ? 'hide' : 'show';
        }
        if (asked.file) {
            vars.llm_rest = edits().prepared(asked, targets, model, hides);
        }
        send(r, kind, targets, targets.length > 1 ? first(targets, model) : 0, asked);
    }

    // The first target that was not found to answer with nothing a moment ago; else the first.
    function first(targets, model) {
        for (let index = 0; index < targets.length; index++) {
            if (!ngx.shared.llm_down.has(`${targets[index].upstream} ${model}`)) {
                return index;
            }
        }
        return 0;
    }

    // `asked` is null for a body in a file.
    function send(r, kind, targets, index, asked) {
        const vars = r.variables, target = targets[index], upstream = target.upstream;
        const last = index + 1 === targets.length;
        let place = '';
        if (asked === null || asked.file) {
            place = '_file';
            edits().beginning(vars, target.model);
        } else {
            const name = target.model === asked.model ? '' : target.model;
            const asks = asked.stream && kind === 'chat' && !asked.shows;
            if (name !== '' || asks) {
                vars.llm_edited = '1';
                vars.llm_body = edits().edited(r, asked, name, asks);
            } else if (index > 0) {
                // The target before this one may have another name for the model.
                vars.llm_edited = '';
            }
        }
        if (!last) {
            vars.llm_next = String(index + 1);
        }
        vars.llm_upstream = upstream;
        vars.llm_key = llm_secrets.keys[upstream];
        // Behind LiteLLM, any upstream may tell its own key.
        if (llm_secrets.hidden !== '') {
            llm_secrets.hidden.split(' ').forEach((key, number) => {
                vars[`llm_hidden_${number}`] = key;
            });
        }
        r.internalRedirect('@llm_' + upstream + '_' + kind + place + (last ? '_last' : ''));
    }

    return {carefully, route, send};
}

export default routes;
