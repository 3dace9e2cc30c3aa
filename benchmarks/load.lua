-- For wrk: the requests of workload.py, through one of the two edges.
-- wrk -t1 -c64 -d8 -s load.lua URL -- EDGE KIND CUSTOMERS LABEL
-- Its last line is JSON: requests per second, p50 and p99 in milliseconds, errors.

local GRAPHQL = '{"query": "mutation ($email: String, $phoneNumber: PhoneNumber) { identify(email: $email, phoneNumber: $phoneNumber) '
  .. '{ outcome cluster { primaryContactId emails phoneNumbers secondaryContactIds } } }", '
  .. '"variables": {"email": "%s", "phoneNumber": "%s"}}'
local REST = '{"email": "%s", "phoneNumber": "%s"}'
local JSON = { ["Content-Type"] = "application/json" }

local threads = {}
function setup(thread) table.insert(threads, thread) end

function init(args)
  graphql, kind, customers, label = args[1] == "graphql", args[2], tonumber(args[3]), args[4]
  count, faults = 0, 0
  math.randomseed(os.time())
end

local function email(j) return string.format("u%d@example.com", j) end
local function phone(j) return string.format("+1555%07d", j) end
local function any() return math.random(0, customers - 1) end

function request()
  count = count + 1
  local what = kind
  if kind == "mix" then
    local n = math.random(100)
    what = n <= 70 and "repeat" or n <= 85 and "new" or n <= 98 and "link" or "merge"
  end
  local a, b
  if what == "repeat" then
    local j = any()
    a, b = email(j), phone(j)
  elseif what == "hot" then
    a, b = email(0), phone(0)
  elseif what == "new" then
    a, b = string.format("n%d-%s@example.com", count, label), string.format("+1%s%09d", label, count)
  elseif what == "link" then
    a, b = string.format("l%d-%s@example.com", count, label), phone(any())
  elseif what == "merge" then
    a, b = email(any()), phone(any())
  end
  local body = string.format(graphql and GRAPHQL or REST, a, b)
  return wrk.format("POST", graphql and "/graphql" or "/identify", JSON, body)
end

function response(status, headers, body)
  if status ~= 200 or (graphql and string.find(body, '"errors":', 1, true)) then faults = faults + 1 end
end

function done(summary, latency, requests)
  local broken = summary.errors
  local errors = broken.connect + broken.read + broken.write + broken.timeout
  for _, thread in ipairs(threads) do errors = errors + thread:get("faults") end
  io.write(string.format('{"rate": %.1f, "p50": %.3f, "p99": %.3f, "errors": %d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors))
end
