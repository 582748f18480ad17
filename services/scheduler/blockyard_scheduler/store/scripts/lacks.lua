-- uses: whole
-- Whether something of the run was lost. KEYS: head, schema, spec, log, pages.
return whole(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]) and 0 or 1
