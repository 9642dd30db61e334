// Which of Dify's services start: gunicorn listens before Dify is imported, and a request would wait for that.
//
// A service starts from the moment in which it refuses connections, or has no address, until it answers for the first
// time. Once it has answered, it is never taken for starting because it is slow: no answer in time changes nothing
// then. Requests look for a file (parts/starting.conf); `ngx.shared.starting` has what was seen last, for all workers
// and across reloads. Names and addresses come from starting/services.json.

import fs from 'fs';

const STARTS = 0;
const ANSWERS = 1;
// An nginx that is new cannot tell a service that is slow from one that starts: it asks this often before it decides.
const UNKNOWN_MOST = 8;

function note(service, state) {
    const mark = `${starting_services.directory}/starting_${service}`;
    if (state === STARTS) {
        fs.writeFileSync(mark, '');
    } else {
        try {
            fs.unlinkSync(mark);
        } catch (e) {
            // There was none.
        }
    }
    ngx.shared.starting.set(service, state);
}

// Any answer is one, whatever its status: Dify is imported. Resolves to the new state, undefined for no change.
async function look(address) {
    try {
        await ngx.fetch(`http://${address}/health`);
        return ANSWERS;
    } catch (e) {
        // Neither a yes nor a no: it may be busy, or the name server is.
        return /timed out/i.test(e.message) ? undefined : STARTS;
    }
}

function nothing(service, known) {
    if (known === STARTS || known === ANSWERS) {
        return;
    }
    // Below zero: how often an unknown service did not answer.
    const count = (known || 0) - 1;
    if (-count >= UNKNOWN_MOST) {
        ngx.log(ngx.WARN, `${service} has not answered yet: requests are told to come again`);
        note(service, STARTS);
    } else {
        ngx.shared.starting.set(service, count);
    }
}

async function oftenFor(service, address) {
    const known = ngx.shared.starting.get(service);
    const seen = await look(address);
    if (seen === undefined) {
        nothing(service, known);
    } else if (seen !== known) {
        ngx.log(ngx.WARN, `${service} ${seen === ANSWERS ? 'answers' : 'is down: requests are told to come again'}`);
        note(service, seen);
    }
}

// With more patience, for a service that starts on a machine on which it is slow even then.
async function patientlyFor(service, address) {
    if (ngx.shared.starting.get(service) === STARTS && await look(address) === ANSWERS) {
        ngx.log(ngx.WARN, `${service} answers`);
        note(service, ANSWERS);
    }
}

// Handlers of the timers. Each service is on its own: one that does not answer does not delay another.
function each(check) {
    const addresses = starting_services.addresses;
    return Promise.all(Object.keys(addresses).map((service) => check(service, addresses[service])));
}

function often() {
    return each(oftenFor);
}

function patiently() {
    return each(patientlyFor);
}

export default {often, patiently};
