# tools/extend_table.awk - the runs of tools/extend_pg19.sh as tables (Markdown) or points of a plot.
# usage: cat WORK/results/*.tsv | awk [-v form=plot] [-v draws=2000] [-v seed=1] -f extend_table.awk
#
# A run is a line: name, ctx, rope, way, mode, rate, seed, steps, tokens, tokens/s (0: not known), validation loss;
# then for each length "LENGTH|DOC;DOC;..." with tokens, nll, far_tokens, far_nll of every book, and
# "position|P;P;..." with tokens before, tokens, loss. Of several rates that with the most seeds is
# taken, of equal ones that of the lowest validation loss. Ratios of perplexities are over the same
# books, losses averaged over seeds; their interval is a paired bootstrap: books drawn with
# replacement, the same for both; beside it the deviation of the ratio from seed to seed. A generator
# of its own makes the draws repeat on every awk.
BEGIN {
    FS = "\t"
    draws = draws ? draws : 2000
    state = seed ? seed : 1
}
function random_below(n) { # Lehmer's: exact in doubles
    state = (state * 48271) % 2147483647
    return int(state / 2147483647 * n)
}
{
    g = $2 SUBSEP $3 SUBSEP $4 SUBSEP $5 SUBSEP $8
    if (!(g in is_group)) {
        is_group[g] = ++groups
        group[groups] = g
        ctx_of[g] = $2; rope_of[g] = $3; way_of[g] = $4; mode_of[g] = $5; steps_of[g] = $8
        if (!(($2) in is_ctx)) { is_ctx[$2] = 1; ctx_list[++ctxs] = $2 }
    }
    k = g SUBSEP $6
    runs[k]++
    val[k] = runs[k] == 1 || $11 < val[k] ? $11 : val[k]
    line[k, runs[k]] = $0
    if (!(k in is_rate)) { is_rate[k] = 1; rates[g] = rates[g] " " $6 }
}
# Sums of a group at its best rate: over books, over seeds.
function gather(g,    r, n, i, best, k, f, m, j, part, doc, d, v, b, p, logs, far, fars) {
    n = split(rates[g], r, " ")
    best = r[1]
    for (i = 2; i <= n; i++)
        if (runs[g, r[i]] > runs[g, best] || (runs[g, r[i]] == runs[g, best] && val[g, r[i]] < val[g, best]))
            best = r[i]
    rate_of[g] = best
    k = g SUBSEP best
    seeds_of[g] = runs[k]
    for (i = 1; i <= runs[k]; i++) {
        m = split(line[k, i], f, "\t")
        if (f[10] > 0) { known[g]++; speed[g] += f[10]; seconds[g] += f[9] / f[10] }
        for (j = 12; j <= m; j++) {
            split(f[j], part, "|")
            d = split(part[2], doc, ";")
            if (part[1] == "position") {
                for (b = 1; b <= d; b++) {
                    split(doc[b], v, ",")
                    places[g] = d; before[g, b] = v[1]; curve[g, b] += v[3] / runs[k]
                }
                continue
            }
            books[g] = d
            logs = n = far = fars = 0
            seed_of[g, i] = f[7]
            for (b = 1; b <= d; b++) {
                split(doc[b], v, ",")
                logs += v[2]; n += v[1]; far += v[4]; fars += v[3]
                tokens[g, part[1], b] = v[1]; nll[g, part[1], b] += v[2] / runs[k]
                far_tokens[g, part[1], b] = v[3]; far_nll[g, part[1], b] += v[4] / runs[k]
            }
            p = exp(logs / n)
            loss_at[g, part[1], f[7]] = logs / n
            ppl[g, part[1]] += p / runs[k]; squares[g, part[1]] += p * p / runs[k]
            if (fars > 0)
                far_ppl[g, part[1]] += exp(far / fars) / runs[k]
        }
    }
    if (known[g]) { speed[g] /= known[g]; seconds[g] /= known[g] }
}
function deviation(g, len,    v) { # over seeds
    v = squares[g, len] - ppl[g, len] ^ 2
    return seeds_of[g] > 1 && v > 0 ? sqrt(v * seeds_of[g] / (seeds_of[g] - 1)) : 0
}
function sort_values(a, n,    gap, i, j, v) {
    for (gap = int(n / 2); gap > 0; gap = int(gap / 2))
        for (i = gap + 1; i <= n; i++) {
            v = a[i]
            for (j = i; j > gap && a[j - gap] > v; j -= gap) a[j] = a[j - gap]
            a[j] = v
        }
}
# "1.005 (1.002 to 1.008)": the perplexity of g over that of base at len, far: of the last quarter.
function ratio(g, base, len, far,    b, i, s, t, n, v, value, kind) {
    for (i = 0; i <= draws; i++) {
        s = t = n = 0
        for (b = 1; b <= books[g]; b++) {
            v = i ? 1 + random_below(books[g]) : b
            if (far) { s += far_nll[g, len, v]; t += far_nll[base, len, v]; n += far_tokens[g, len, v] }
            else { s += nll[g, len, v]; t += nll[base, len, v]; n += tokens[g, len, v] }
        }
        v = n > 0 ? exp((s - t) / n) : 0
        if (i) drawn[i] = v; else value = v
    }
    sort_values(drawn, draws)
    return sprintf("%.4f (%.4f to %.4f)", value, drawn[int(draws * 0.025) + 1], drawn[int(draws * 0.975)])
}
# The deviation of that ratio over the seeds that both have.
function ratio_deviation(g, base, len,    i, v, n, sum, squares_) {
    for (i = 1; i <= seeds_of[g]; i++)
        if ((base, len, seed_of[g, i]) in loss_at) {
            v = exp(loss_at[g, len, seed_of[g, i]] - loss_at[base, len, seed_of[g, i]])
            n++; sum += v; squares_ += v * v
        }
    v = n > 1 ? (squares_ - sum * sum / n) / (n - 1) : 0
    return n > 1 ? sprintf("%.4f", v > 0 ? sqrt(v) : 0) : "-"
}
function order(g) { # base first, then dense; by parts before PI; LoRA+ before the others
    return (mode_of[g] == "none" ? 0 : mode_of[g] == "lora+" ? 1 : mode_of[g] == "full" ? 2 : 3) * 1000 + \
        (rope_of[g] == "parts" ? 0 : rope_of[g] == "pi" ? 100 : 200) + \
        (index(" base dense s2-4 mix-4 mix-16 mix-16-20 mix-16-seconds mix-32 ", " " way_of[g] " "))
}
function name(g) {
    return (rope_of[g] == "parts" ? "by parts" : rope_of[g] == "pi" ? "PI" : "not scaled") ", " \
        (mode_of[g] == "none" ? "untrained" : mode_of[g] == "lora+" ? "LoRA+" : mode_of[g] == "lora" ? "LoRA" : "full") \
        (mode_of[g] == "none" ? "" : way_of[g] == "mix-16-seconds" ? ", mix-16 for the seconds of dense" : ", " way_of[g])
}
function print_table(ctx, list, n,    i, g, len, text, least) {
    least = ctx
    while (group_has(list[1], least / 2)) least /= 2
    printf "\n## To %d tokens\n\nPerplexity of the test books by context (mean over seeds, standard deviation at the longest), last quarter of it, speed.\n\n|", ctx
    printf " |"
    for (len = least; len <= ctx; len *= 2) printf " %d |", len
    printf " +- | last quarter | seeds | rate | steps | tokens/s | seconds |\n|---|"
    for (len = least; len <= ctx; len *= 2) printf "---:|"
    print "---:|---:|---:|---:|---:|---:|---:|"
    for (i = 1; i <= n; i++) {
        g = list[i]
        text = "| " name(g) " |"
        for (len = least; len <= ctx; len *= 2) text = text sprintf(" %.2f |", ppl[g, len])
        if (mode_of[g] == "none")
            print text sprintf(" | %.2f | | | | | |", far_ppl[g, ctx])
        else
            print text sprintf(" %.2f | %.2f | %d | %s | %d |%s", deviation(g, ctx), far_ppl[g, ctx],
                seeds_of[g], rate_of[g], steps_of[g], speed[g] ? sprintf(" %.0f | %.1f |", speed[g], seconds[g]) : " | |")
    }
}
# Where rates were searched: by rate, the validation books by which one was chosen, and the test books.
function print_rates(ctx, list, n,    i, j, k, m, r, all, rate, lines, row, f) {
    for (i = 1; i <= n; i++) {
        m = split(rates[list[i]], r, " ")
        if (m < 2) continue
        for (j = 1; j <= m; j++) {
            k = r[j] + 0
            if (!(k in all)) { all[k] = 1; rate[++lines] = k }
        }
    }
    if (!lines) return
    sort_values(rate, lines)
    printf "\nThe search: perplexity at %d of the validation books, by which the rate was chosen (*), and of the test books; first seed.\n\n| |", ctx
    for (j = 1; j <= lines; j++) printf " %g |", rate[j]
    printf "\n|---|"
    for (j = 1; j <= lines; j++) printf "---:|"
    print ""
    for (i = 1; i <= n; i++) {
        m = split(rates[list[i]], r, " ")
        if (m < 2) continue
        for (j = 1; j <= lines; j++) row[j] = ""
        for (k = 1; k <= m; k++)
            for (j = 1; j <= lines; j++)
                if (r[k] + 0 == rate[j]) {
                    split(line[list[i] SUBSEP r[k], 1], f, "\t")
                    row[j] = sprintf("%.2f%s, %.2f", exp(f[11]), r[k] == rate_of[list[i]] ? "*" : "", read_at(f, ctx))
                }
        printf "| %s |", name(list[i])
        for (j = 1; j <= lines; j++) printf " %s |", row[j]
        print ""
    }
}
function read_at(f, len,    j, part, doc, d, b, v, s, n) { # the perplexity of one run's books at len
    for (j = 12; j in f; j++) {
        split(f[j], part, "|")
        if (part[1] + 0 != len) continue
        d = split(part[2], doc, ";")
        for (b = 1; b <= d; b++) { split(doc[b], v, ","); n += v[1]; s += v[2] }
    }
    return n > 0 ? exp(s / n) : 0
}
function group_has(g, len) { return (g, len) in ppl }
function times(g, base) { return speed[g] * speed[base] ? speed[g] / speed[base] : 0 } # as fast; 0: not known
# What a mix is to reach: by its groups the ratio, the last quarter's, and times as fast by length.
function asked(g, base, ctx, least,    most, speed_least, r, f) {
    most = way_of[g] == "mix-4" ? 1.01 : way_of[g] == "mix-16" ? 1.02 : 0
    if (!most || mode_of[g] != "lora+" || rope_of[g] != "parts") # PI has no rates of its own
        return rate_of[g] != rate_of[base] ? "(at another rate than dense)" : ""
    speed_least = ctx / least >= 32 ? 2 : 1.5
    r = ratio(g, base, ctx, 0) + 0 # the number before the interval
    f = ratio(g, base, ctx, 1) + 0
    return sprintf("at most %.2f: %s; %.2f: %s%s", most, r <= most ? "yes" : "no", most + 0.01, f <= most + 0.01 ? "yes" : "no",
        times(g, base) ? sprintf("; at least %.1f: %s", speed_least, times(g, base) >= speed_least ? "yes" : "no") : "")
}
function print_ratios(ctx, list, n,    i, j, g, base, least) {
    least = ctx
    while (group_has(list[1], least / 2)) least /= 2
    printf "\nPerplexity at %d over that of dense training with the same RoPE and mode (95%% of a paired bootstrap over books; deviation over seeds), and speed.\n\n", ctx
    print "| | whole context | +- seeds | last quarter | times as fast | asked for |\n|---|---|---:|---|---:|---|"
    for (i = 1; i <= n; i++) {
        g = list[i]
        if (way_of[g] == "dense" || way_of[g] == "base") continue
        base = ""
        for (j = 1; j <= n; j++)
            if (way_of[list[j]] == "dense" && rope_of[list[j]] == rope_of[g] && mode_of[list[j]] == mode_of[g])
                base = list[j]
        if (base == "") continue
        printf "| %s | %s | %s | %s | %s | %s |\n", name(g), ratio(g, base, ctx, 0), ratio_deviation(g, base, ctx), ratio(g, base, ctx, 1),
            times(g, base) ? sprintf("%.2f", times(g, base)) : "", asked(g, base, ctx, least)
    }
}
# By where in the window: the last seven octaves of the number of tokens before.
function print_positions(ctx, list, n,    i, j, g, m, from, text, ruler) {
    m = places[list[1]]
    if (m < 2) return
    from = m > 7 ? m - 6 : 1
    printf "\nPerplexity by the number of tokens before, in windows of %d.\n\n| |", ctx
    for (j = from; j <= m; j++) {
        text = text sprintf(" %d to %d |", before[list[1], j], j < m ? before[list[1], j + 1] : ctx)
        ruler = ruler "---:|"
    }
    print text "\n|---|" ruler
    for (i = 1; i <= n; i++) {
        g = list[i]
        if (places[g] != m) continue
        text = "| " name(g) " |"
        for (j = from; j <= m; j++) text = text sprintf(" %.2f |", exp(curve[g, j]))
        print text
    }
}
function print_points(ctx, list, n,    i, j, g) {
    for (i = 1; i <= n; i++) {
        g = list[i]
        if (mode_of[g] != "none")
            printf "run\t%d\t%s\t%s\t%s\t%.6g\t%.6g\t%.6g\n", ctx, rope_of[g], way_of[g], mode_of[g], seconds[g],
                ppl[g, ctx], deviation(g, ctx)
        for (j = 1; j <= places[g]; j++)
            printf "curve\t%d\t%s\t%s\t%s\t%d\t%.6g\t0\n", ctx, rope_of[g], way_of[g], mode_of[g], before[g, j],
                exp(curve[g, j])
    }
}
END {
    for (i = 1; i <= groups; i++) gather(group[i])
    for (c = 1; c <= ctxs; c++) sorted_ctx[c] = ctx_list[c] + 0
    sort_values(sorted_ctx, ctxs)
    for (c = 1; c <= ctxs; c++) {
        n = 0
        for (i = 1; i <= groups; i++)
            if (ctx_of[group[i]] == sorted_ctx[c]) list[++n] = group[i]
        for (i = 2; i <= n; i++) { # few: by insertion
            v = list[i]
            for (j = i; j > 1 && order(list[j - 1]) > order(v); j--) list[j] = list[j - 1]
            list[j] = v
        }
        if (form == "plot") { print_points(sorted_ctx[c], list, n); continue }
        print_table(sorted_ctx[c], list, n)
        print_ratios(sorted_ctx[c], list, n)
        print_positions(sorted_ctx[c], list, n)
        print_rates(sorted_ctx[c], list, n)
    }
}
