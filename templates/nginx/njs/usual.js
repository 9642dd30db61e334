// What a body of the usual kind asks for, as nginx's own pattern has read it ($llm_read: infra/edge/llm_request.py).

// {model, answers, size}, and where the body says so: `stream`, `shows`: the caller is shown usage, `limit`: tokens of an
// answer at most. Null for a body that is not of the usual kind, undefined for a long one that has not been at @llm_long.
function usual(r) {
    const vars = r.variables, size = Number(vars.content_length) || 0;
    // From here on the copy that a map makes of a body costs more than another script engine (parts/llm_long.conf). A larger
    // one, or one without a length, is in a file, and neither pattern sees it.
    const long = size >= 16384 && size < 1e6, read = long ? vars.llm_long_read : vars.llm_read;
    if (!read) {
        return long ? undefined : null;
    }
    if (read === 'unusual') {
        return null;
    }
    // Most name a model, and nothing else that is decided on.
    if (read.endsWith('||||||')) {
        return {model: read.slice(0, -6), answers: 1, size};
    }

    function most(one, other) {
        return Math.max(Number(one) || 0, Number(other) || 0);
    }

    const parts = read.split('|');
    return {
        model: parts[0],
        stream: parts[1] === 'true',
        options: parts[2],
        shows: parts[2].indexOf('true') > 0,
        limit: most(parts[3], parts[4]),
        answers: most(parts[5], parts[6]) || 1,
        size,
    };
}

export default usual;
