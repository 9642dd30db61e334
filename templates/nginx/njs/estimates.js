// What an answer was whose upstream did not count its tokens.

// `answer` is what is known of it: see the variables of meter.js. Functions are made for each request: hence inside.
function estimates(answer) {
    const counted = answer.stream === null ? {events: 0, written: 0, quiet: -1} : answer.stream.counted();

    // Whether an answer that came with 200 is none.
    function empty() {
        const head = answer.head === null ? Buffer.alloc(0) : answer.head;
        if (answer.mode === 'stream') {
            return counted.events === 0 && (!answer.begun || head.indexOf('"error"') >= 0);
        }
        if (!answer.begun) {
            return true;
        }
        if (answer.seen !== head.length || answer.seen > 65536 || head.indexOf('"error"') < 0) {
            return false;
        }
        try {
            const said = JSON.parse(head.toString());
            return Boolean(said.error) && !said.choices && !said.data;
        } catch (e) {
            return false;
        }
    }

    // Tokens of it, at most `most`.
    function tokens(vars, most) {
        if (vars.llm_kind !== 'chat') {
            return 0;
        }
        if (!answer.begun && !answer.complete) {
            // Nobody knows how far the upstream is, and it may go on to the end.
            return most;
        }
        const size = Math.max(answer.seen, Number(vars.body_bytes_sent));
        let found = answer.mode === 'stream' ? Math.max(counted.events, Math.ceil(counted.written / 4))
            : Math.ceil(size / 4);
        if (!answer.complete && !answer.passing) {
            // A model may have thought in silence. The first second is the network's, and the question's.
            const seconds = counted.quiet >= 0 ? counted.quiet : Number(vars.request_time);
            found += Math.ceil(Math.max(0, seconds - 1) * 200);
        }
        return Math.min(found, Math.max(most, 1));
    }

    return {empty, tokens};
}

export default estimates;
