-- wrk: each request with the next token of /bench/tokens.txt.
local tokens = {}
for line in io.lines("/bench/tokens.txt") do
    tokens[#tokens + 1] = "Bearer " .. line
end
local next_one = 0
function request()
    next_one = next_one % #tokens + 1
    wrk.headers["Authorization"] = tokens[next_one]
    return wrk.format()
end
