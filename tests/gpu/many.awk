# tests/gpu/many.awk - the lines of many.sh's RESULTS as a table. -v gpus=N
function field(s, key) { # a number after "key": or nothing
    return match(s, "\"" key "\": ?[0-9.e+-]+") ? substr(s, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : ""
}
function words(s, key) { # a string
    return match(s, "\"" key "\":\"[^\"]*") ? substr(s, RSTART + length(key) + 4, RLENGTH - length(key) - 4) : ""
}
function shown(x, form) { return x == "" ? "-" : sprintf(form, x) }
# What many do beside one: of rows that are each one's own as much for each; of shared sequences in all.
function linear(row, ratio) { return ratio == "" ? "" : ratio / gpus }
function must_of(row) { # of the speed of so many alone
    if (row ~ /^dp:/) return gpus == 2 ? 0.975 : 0.97
    if (row == "cp:102400") return gpus == 2 ? 0.985 : 0.97
    if (row ~ /^cp:/) return 0.965
    if (row == "dense:65536") return 0.935
    if (row ~ /^dense:/) return 0.965
    if (row ~ /^eval:/) return 0.975
    if (row ~ /^scratch:/) return 0.925
    return ""
}
{ row = $1; kind = $2; sub(/^[^ ]+ [^ ]+ /, ""); x[row, kind] = $0
  if (!(row in seen)) { seen[row] = ++n; order[n] = row } }
END {
    printf "\n%d GPUs\n\n", gpus
    for (i = 1; i <= n; i++) {
        r = order[i]; v = x[r, "many"]
        if (r ~ /^truth:/ && v != "")
            printf "%s: status %s, %s tests passed%s\n", r, field(v, "status"), field(v, "passed"),
                words(v, "failed") != "" ? "; FAILED " words(v, "failed") : ""
        if (r ~ /^killed:/ && v != "")
            printf "%s: status %s, all gone %s ms after it; must 5000; %s\n", r, shown(field(v, "status"), "%d"),
                shown(field(v, "ms"), "%d"), words(v, "said") words(v, "error")
    }
    form = "| %-15s | %9s | %8s | %9s | %6s | %7s | %5s | %8s | %9s | %8s | %9s | %9s | %9s | %6s |\n"
    printf "\n" form, "row", "tokens/s", "a GPU", "one alone", "speed", "a GPU's", "must", "plan", "of plan", "plan of", "waits", "hidden", "GiB", "peer"
    printf form, "", "", "", "", "", "share", "", "tokens/s", "", "speed", "of a step", "", "", ""
    print "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= n; i++) {
        r = order[i]; v = x[r, "many"]
        if (r ~ /^(truth|killed):/ || v == "")
            continue
        t = field(v, "tok_s"); s = field(v, "step_s"); p = x[r, "plan_many"]; o = x[r, "one"]
        one = field(o, "tok_s"); ratio = t != "" && one ? t / one : ""
        share = linear(r, ratio); must = must_of(r)
        if (r ~ /^shard:/) { # beside rows that are not shared
            d = r; sub(/^shard/, "dp", d); one = ""; u = field(x[d, "many"], "tok_s")
            share = t != "" && u ? t / u : ""; must = 0.95
        }
        plan = field(p, "batch_tok_s"); alone = field(x[r, "plan_one"], "tok_s")
        a = alone == "" && field(x[r, "plan_one"], "step_s") ? field(v, "ctx") / field(x[r, "plan_one"], "step_s") : alone
        w = field(v, "wait_s"); c = field(v, "comm_s"); if (c > w) w = c
        q = field(x[r, "peer"], "tok_s")
        printf form, r, shown(t, "%.0f"), shown(t == "" ? "" : t / gpus, "%.0f"), shown(one, "%.0f"), shown(ratio, "%.3f"),
            shown(share, "%.3f"), shown(must, "%.3f"), shown(plan, "%.0f"), shown(plan && t != "" ? t / plan : "", "%.3f"),
            shown(plan && a ? plan / a : "", "%.3f"), shown(w != "" && s ? 100 * w / s : "", "%.2f%%"),
            shown(field(v, "hidden_s") == "" ? "" : 1e3 * field(v, "hidden_s"), "%.1f ms"),
            shown(field(v, "memory_bytes") == "" ? "" : field(v, "memory_bytes") / 2^30, "%.1f"), shown(q, "%.0f")
        if (share != "" && must != "" && share < must)
            short = short " " r
        if (r ~ /^seventy:/ && t != "" && t / gpus < 1600)
            short = short " " r
        if ((r ~ /^(cp|equal):/) && w != "" && s && w > 0.01 * s)
            waits = waits " " r
    }
    for (i = 1; i <= n; i++)
        for (k = 1; k <= 5; k++) {
            kind = substr("many     one      plan_manyplan_one peer     ", 9 * k - 8, 9); sub(/ +$/, "", kind)
            if (words(x[order[i], kind], "error") != "" && order[i] !~ /^killed/)
                printf "%s, %s: %s\n", order[i], kind, words(x[order[i], kind], "error")
        }
    if (short) print "below what must be reached:" short
    if (waits) print "ranks wait for each other more than 1% of a step:" waits
}
