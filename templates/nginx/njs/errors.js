// Errors in OpenAI's shape.

// [code, message] for an upstream's error that says nothing that could be passed on.
function refusal(status) {
    return status === 429 ? ['rate_limit_exceeded', 'The upstream has too much to do, or too many requests from here.']
        : ['upstream_error', 'The upstream refused the request.'];
}

function text(status, code, message, param) {
    // Made when it is asked for: what stands outside of functions is run for every request.
    const kinds = {
        400: 'invalid_request_error',
        401: 'authentication_error',
        403: 'permission_error',
        404: 'invalid_request_error',
        405: 'invalid_request_error',
        413: 'invalid_request_error',
        429: 'rate_limit_error',
    };
    // Clients take `insufficient_quota` as final.
    const type = code === 'budget_exceeded' ? 'insufficient_quota' : kinds[status] || 'server_error';
    return JSON.stringify({error: {message, type, param: param || null, code}});
}

// `final`: trying again is of no use, and OpenAI's clients are told so.
function send(r, status, code, message, param, final) {
    r.headersOut['Content-Type'] = 'application/json';
    if (final) {
        r.headersOut['x-should-retry'] = 'false';
    }
    r.return(status, text(status, code, message, param));
}

export default {refusal, send, text};
