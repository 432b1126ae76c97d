# tools/retrieval_table.awk - what 'leval --table --json' says of several models' tasks, as a table (Markdown): the score of
# the first, points above it, of every task over all lengths, and whether that is within 2 points of it.
# usage: leval --table --json FIRST OTHER ... | awk [-v learnt=FILE] -f retrieval_table.awk
#        awk -v form=learnt -f retrieval_table.awk RESULT      lines of task and percent, for the other's FILE
#
# "yes": all of the interval is above -2; "no": all of it is below; "open": these prompts do not tell. Nothing is said where
# there is nothing to compare: of a task that FILE has below 50%, which was not learnt by the model that all were extended
# from, and of one that the first model answers below 10%.
BEGIN {
    while (learnt != "" && (getline row < learnt) > 0) {
        split(row, f, " ")
        taught[f[1]] = f[2]
    }
}
function value() { # of this line: behind the colon, without comma and quotes
    sub(/^[^:]*: */, "")
    gsub(/[",]/, "")
    return $0
}
/^ *"label":/ {
    label = value()
    if (first == "") first = label
}
/^ *"summary":/ { part = "summary" }
/^ *"above_first":/ { part = "above" }
/^ *"task":/ { task = value() }
/^ *"length":/ { len = value() }
/^ *"score":/ { score = value() + 0 }
/^ *"low":/ { low = value() + 0 }
/^ *"high":/ {
    high = value() + 0
    if (part == "summary" && label == first && task != "null" && (len == "null" || !(task in mean))) {
        if (!(task in mean)) order[++tasks] = task
        mean[task] = score
    }
    if (part == "above" && len == "null" && task != "null") {
        if (!((label) in seen)) { seen[label] = 1; other[++others] = label }
        got[label, task] = sprintf("%+.1f [%+.1f, %+.1f]", 100 * score, 100 * low, 100 * high)
        verdict[label, task] = low >= -0.02 ? "yes" : high < -0.02 ? "no" : "open"
    }
}
END {
    if (form == "learnt") {
        for (i = 1; i <= tasks; i++) printf "%s %.1f\n", order[i], 100 * mean[order[i]]
        exit
    }
    printf "| | %s, %% |", first
    for (k = 1; k <= others; k++) printf " %s |", other[k]
    printf "\n|---|---:|"
    for (k = 1; k <= others; k++) printf "---|"
    print ""
    for (i = 1; i <= tasks; i++) {
        t = order[i]
        unlearnt = (t in taught) && taught[t] < 50
        told = !unlearnt && mean[t] >= 0.1
        printf "| %s%s | %.1f |", t, unlearnt ? " (not learnt)" : "", 100 * mean[t]
        for (k = 1; k <= others; k++)
            printf " %s%s |", (other[k], t) in got ? got[other[k], t] : "-",
                told && (other[k], t) in got ? ": " verdict[other[k], t] : ""
        print ""
    }
}
