// The way to an upstream of the LLM proxy through an HTTP proxy: asks it for a tunnel (CONNECT), then passes bytes on.
// It runs in the stream server of each upstream. What the client sends first is kept until the tunnel is open.

// A longer head is no response of a proxy.
const LONGEST_HEAD = 16384;
// From the start of the connection, the time to the proxy included. Shorter than the http server's time for a handshake (5 s):
// the next upstream of a model can still answer, and the log names the reason.
const MOST_MILLISECONDS = 4000;
const END = '\r\n\r\n';

// The request for a tunnel to `target`, host and port.
function request(target, authorization) {
    const lines = [`CONNECT ${target} HTTP/1.1`, `Host: ${target}`];
    if (authorization) {
        lines.push(`Proxy-Authorization: ${authorization}`);
    }
    return lines.join('\r\n') + END;
}

// Splits the first bytes of a proxy: {status, line, rest}, or null while the head is incomplete.
function response(received) {
    const end = received.indexOf(END);
    if (end < 0) {
        return null;
    }
    const head = received.subarray(0, end).toString();
    const line = head.split('\r\n', 1)[0];
    const found = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(line);
    return { line, status: found ? Number(found[1]) : 0, rest: received.subarray(end + END.length) };
}

function open(s) {
    const target = s.variables.llm_target;
    // In TLS the client sends little before the server does, in plain HTTP a whole request.
    const most = Number(s.variables.llm_kept);
    const timer = setTimeout(() => fail('the proxy did not answer in time'), Math.max(0, MOST_MILLISECONDS - 1000 * s.variables.session_time));
    let kept = [];
    let size = 0;
    let received = Buffer.alloc(0);
    let asked = false;

    function fail(reason) {
        // The message goes to nginx's log, and the connection ends: the http server takes the next upstream.
        throw new Error(`no tunnel to ${target} through ${s.variables.llm_proxy}: ${reason}`);
    }

    s.on('upstream', (data, flags) => {
        kept.push(data);
        size += data.length;
        if (size > most) {
            fail('the client sends too much before it is open');
        }
        if (!asked) {
            asked = true;
            s.send(request(target, llm_tunnel.authorization), flags);
        }
    });

    s.on('downstream', (data, flags) => {
        received = Buffer.concat([received, data]);
        const found = response(received);
        if (found === null) {
            if (flags.last || received.length > LONGEST_HEAD) {
                fail(flags.last ? 'the proxy closed the connection' : 'its response is not one of a proxy');
            }
            return;
        }
        if (found.status < 200 || found.status > 299) {
            fail(found.line.slice(0, 200));
        }
        clearTimeout(timer);
        s.off('upstream');
        s.off('downstream');
        s.sendUpstream(Buffer.concat(kept));
        kept = [];
        if (found.rest.length || flags.last) {
            s.send(found.rest, flags);
        }
    });
}

export default { open, request, response };
