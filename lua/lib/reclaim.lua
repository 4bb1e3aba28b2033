-- Mirrors core/src/rules/reclaim.ts: when taking over lost work stops.

function reclaim.at_cap(reclaims, policy_cap, call_cap)
  return reclaims >= (policy_cap or call_cap or 100)
end
