// What a request was admitted for: $llm_terms, "<bytes of its body> <tokens of its answer at most> <hour>", the hour empty
// for a caller without a budget.

// Tokens of a body, by its size. A prompt that is longer would be refused by every model.
function input(size) {
    return Math.min(Math.ceil(size / 4), 1e6);
}

// What a request may cost at most.
function dollars(model, size, output) {
    const price = llm_tables.prices[model];
    return price ? (input(size) * price.input + output * price.output) / 1e6 : 0;
}

// A request is over: release what is reserved for it. Returns the size and the tokens.
function settled(caller, model, terms) {
    const parts = terms.split(' '), size = Number(parts[0]), output = Number(parts[1]);
    if (parts[2] !== '') {
        ngx.shared.llm_reserved.incr(caller + ' ' + parts[2], -dollars(model, size, output), 0);
    }
    return [size, output];
}

export default {dollars, input, settled};
