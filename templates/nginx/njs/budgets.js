// What a caller may still spend: dollars of this month, and those reserved for requests under way.

import errors from './errors.js';
import kept from './kept.js';
import terms from './terms.js';

function budgets() {
    // Dollars of this month; null where the zone has no room for the counter of another caller. One that is there needs
    // no room to grow.
    function spent(caller, now) {
        const counters = ngx.shared.llm_usage;
        if (!counters.has('loaded')) {
            kept().load();
        }
        const own = new Date(now).toISOString().slice(0, 7) + ' ' + caller, dollars = counters.get(own);
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

    // Reserve what a request may cost at most, unless the budget is used up. Returns the hour, for the release, and null
    // for a request that was refused.
    function reserve(r, model, size, output, budget) {
        const caller = r.variables.llm_caller, now = Date.now(), dollars = spent(caller, now);
        if (dollars === null) {
            errors.send(r, 503, 'usage_not_counted',
                'The counters have no room for another caller, so the budget of this key cannot be kept.');
            return null;
        }
        if (dollars >= budget) {
            errors.send(r, 429, 'budget_exceeded', 'The budget of this month is spent.', null, true);
            return null;
        }
        // By caller and by the hour in which a request began: what is lost with its worker is forgotten with its hour.
        const held = ngx.shared.llm_reserved, hour = Math.floor(now / 3600000), own = caller + ' ' + hour;
        const most = terms.dollars(model, size, output);
        let others = held.incr(own, most, 0) - most;
        if (now % 3600000 < 1200000) {
            others += held.get(caller + ' ' + (hour - 1)) || 0;
        }
        if (dollars + others >= budget) {
            held.incr(own, -most, 0);
            r.headersOut['Retry-After'] = '5';
            errors.send(r, 429, 'budget_reserved',
                'The rest of the budget of this month is reserved for requests that are under way. '
                + 'A smaller max_tokens reserves less.');
            return null;
        }
        return hour;
    }

    return {reserve, spent};
}

export default budgets;
