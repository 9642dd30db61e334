-- wrk: each connection rests for about a millisecond before its next request, so that no core is full.
-- At random, so that the connections do not come at once.
function delay()
    return math.random(0, 2)
end
