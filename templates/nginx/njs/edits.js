// The bytes of a request body that go to the upstream: those of the caller, with the edits that the proxy makes.

import fs from 'fs';

// Made for those that need it: functions are made for each request.
function edits() {
    // `name`: what the upstream calls the model, or '' where it is called as the caller did; `usage`: ask for usage. Only the
    // bytes of what changes are others.
    function edited(r, asked, name, usage) {
        const body = r.requestBuffer;
        const changes = [];
        if (name !== '') {
            const at = modelAt(r, asked, body.length);
            changes.push([at[0], at[1], JSON.stringify(name)]);
        }
        if (usage) {
            changes.push(usageEdit(r, asked, body));
        }
        changes.sort((one, other) => one[0] - other[0]);
        const pieces = [];
        let from = 0;
        changes.forEach((change) => {
            pieces.push(body.slice(from, change[0]), Buffer.from(change[2]));
            from = change[1];
        });
        pieces.push(body.slice(from));
        return Buffer.concat(pieces);
    }

    function modelAt(r, asked, size) {
        if (asked.members) {
            return [asked.members.model.begin, asked.members.model.end];
        }
        const end = size - r.rawVariables.llm_j_after_model.length;
        return [end - asked.model.length - 2, end];
    }

    function usageEdit(r, asked, body) {
        const wanted = `{"${llm_tables.option}":true}`;
        if (!asked.options) {
            const end = asked.members ? asked.last : body.lastIndexOf('}');
            return [end, end, `,"stream_options":${wanted}`];
        }
        if (!asked.members) {
            const end = body.length - r.rawVariables.llm_j_after_stream_options.length;
            return [end - asked.options.length, end, wanted];
        }
        const begin = asked.members.stream_options.begin;
        const text = withUsage(asked);
        return [begin, asked.members.stream_options.end, text];
    }

    // The options with usage asked for, everything else in them as it was written.
    function withUsage(asked) {
        const text = asked.options;
        if (text === 'null' || !text) {
            return `{"${llm_tables.option}":true}`;
        }
        const bytes = Buffer.from(text);
        if (asked.place !== null) {
            return Buffer.concat([bytes.slice(0, asked.place[0]), Buffer.from('true'), bytes.slice(asked.place[1])]).toString();
        }
        const empty = /^\{\s*\}$/.test(text);
        return `{"${llm_tables.option}":true${empty ? '' : ','}${text.slice(1)}`;
    }

    // The same for a body in a file. Its beginning travels at the end of the header: what comes first there replaces the
    // brace and the members that are blanked here. Returns what beginning() needs.
    function prepared(asked, targets, model, usage) {
        let others = false;
        // An array that njs preloads has no methods.
        for (let index = 0; index < targets.length; index++) {
            others = others || targets[index].model !== model;
        }
        const descriptor = fs.openSync(asked.file, 'r+');
        const removed = [];
        if (others) {
            removed.push(asked.members.model);
        }
        if (usage && asked.members.stream_options !== undefined) {
            removed.push(asked.members.stream_options);
        }
        removed.sort((one, other) => other.index - one.index);
        blank(descriptor, asked.begin, asked.begin + 1);
        let behind = asked.count;
        removed.forEach((member) => {
            blank(descriptor, member.name, member.end);
            if (member.after >= 0) {
                blank(descriptor, member.after, member.after + 1);
            }
            // Nothing is left behind it.
            if (member.index === behind - 1) {
                behind--;
                if (member.before >= 0) {
                    blank(descriptor, member.before, member.before + 1);
                }
            }
        });
        fs.closeSync(descriptor);
        return JSON.stringify({
            size: asked.size,
            added: usage ? `"stream_options":${withUsage(asked)}` : '',
            left: asked.count > removed.length,
            others,
        });
    }

    // What goes up before the rest of a body in a file, as the end of the last header: neither it nor anything else of the
    // body is in memory then. `name` is what the upstream calls the model.
    function beginning(vars, name) {
        const rest = JSON.parse(vars.llm_rest);
        const members = [];
        if (rest.others) {
            members.push(`"model":${JSON.stringify(name)}`);
        }
        if (rest.added !== '') {
            members.push(rest.added);
        }
        const text = `{${members.join(',')}${members.length > 0 && rest.left ? ',' : ''}`;
        vars.llm_start = `application/json\r\n\r\n${text}`;
        // With the blank line that nginx ends the header by, and the end of the line before it.
        vars.llm_length = String(Buffer.from(text).length + 4 + rest.size);
    }

    function blank(descriptor, begin, end) {
        fs.writeSync(descriptor, Buffer.alloc(end - begin, ' '), 0, end - begin, begin);
    }

    return {beginning, edited, prepared};
}

export default edits;
