// JSON in bytes, read by steps of njs: for what no pattern reads. Making text of the bytes is the expensive part.

// Made for those that need it: functions are made for each request.
function bytes() {
    // Where the value begins whose name ends before `at`, -1 when no value follows.
    function valueAt(data, at) {
        let colons = 0;
        while (data[at] === 32 || data[at] === 10 || data[at] === 13 || data[at] === 9 || (data[at] === 58 && colons === 0)) {
            colons += data[at] === 58 ? 1 : 0;
            at++;
        }
        return colons === 1 ? at : -1;
    }

    // The place behind the brace that closes the one at `at`, -1 where it is not there.
    function closing(data, at) {
        let depth = 0, end = at;
        do {
            const c = data[end];
            if (c === 123) {
                depth++;
            } else if (c === 125) {
                depth--;
            } else if (c === 34) {
                do {
                    end = data.indexOf(34, end + 1);
                } while (end >= 0 && escaped(data, end));
                if (end < 0) {
                    return -1;
                }
            }
            end++;
        } while (depth > 0 && end < data.length && end - at < 4096);
        return depth === 0 ? end : -1;
    }

    function escaped(data, at) {
        let before = at;
        while (data[before - 1] === 92) {
            before--;
        }
        return (at - before) % 2 === 1;
    }

    // The number that follows a name, -1 when none does. In the bytes: making text of them is the expensive part.
    function number(data, name, begin, end) {
        const at = data.indexOf(name, begin);
        if (at < 0 || at >= end) {
            return -1;
        }
        let place = valueAt(data, at + name.length), value = 0;
        if (place < 0 || data[place] < 48 || data[place] > 57) {
            return -1;
        }
        while (data[place] >= 48 && data[place] <= 57) {
            value = 10 * value + data[place++] - 48;
        }
        return value;
    }

    return {closing, escaped, number, valueAt};
}

export default bytes;
