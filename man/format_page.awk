# man/format_page.awk - turns formats/X.md into the section 5 page longlora-X.5, so that each
# format is written down once. 'make man' calls it:
#   awk -v name=X -v date='November 22, 2026' -f man/format_page.awk formats/X.md
# Understands what those files use: headings, paragraphs, tables, '-' lists, code, `literals`.

function escape(s) {
    gsub(/\\/, "\\e", s)
    gsub(/\*\*/, "", s)
    return s
}
function inline(s,   out, n, part, i) { # `x` to bold, the rest as it is
    s = escape(s)
    n = split(s, part, "`")
    for (i = 1; i <= n; i++)
        out = out (i % 2 ? part[i] : "\\fB" part[i] "\\fR")
    while (match(out, /[a-z]+\.md/)) # a page names its fellow pages as pages
        out = substr(out, 1, RSTART - 1) "longlora-" substr(out, RSTART, RLENGTH - 3) "(5)" \
            substr(out, RSTART + RLENGTH)
    gsub(/formats\/longlora-/, "longlora-", out)
    return out
}
function line(s) { # a text line must not look like a request
    if (s ~ /^[.']/)
        s = "\\&" s
    print s
}
function text(s,   n, part, i) { # one sentence a line
    s = inline(s)
    gsub(/[.] +/, ".\n", s)
    gsub(/[.]\nE_/, ". E_", s)
    n = split(s, part, "\n")
    for (i = 1; i <= n; i++)
        if (part[i] != "")
            line(part[i])
}
function flush() {
    if (para != "") {
        if (item)
            print ".It"
        else if (!fresh)
            print ".Pp"
        text(para)
        fresh = 0
    }
    para = ""
    item = 0
}
function end_list() {
    flush()
    if (list)
        print ".El"
    list = 0
}
function end_code() {
    if (code)
        print ".Ed"
    code = 0
}
function cells(s,   n, i) {
    sub(/^\| */, "", s)
    sub(/ *\|[ ]*$/, "", s)
    gsub(/\\\|/, "\001", s) # a bar that is meant
    n = split(s, cell, / *\| */)
    for (i = 1; i <= n; i++)
        gsub(/\001/, "|", cell[i])
    return n
}
function end_table(   r, c, k, tag, body, width) {
    if (!rows)
        return
    for (c = 1; c <= cols; c++)
        if (tab[1, c] == "meaning")
            k = c
    if (!k)
        k = 2
    print ".Bl -tag -width Ds"
    for (r = 2; r <= rows; r++) {
        tag = ""
        for (c = 1; c < k; c++)
            if (tab[r, c] != "")
                tag = tag (tag == "" ? "" : "  ") \
                    (tab[1, c] == "bytes" ? tab[r, c] (tab[r, c] == "1" ? " byte" : " bytes") : \
                     tab[1, c] == "offset" ? "at " tab[r, c] ":" : tab[r, c])
        print ".It " wrap(tag)
        body = tab[r, k]
        for (c = k + 1; c <= cols; c++)
            if (tab[r, c] != "")
                body = body (body == "" ? "" : body ~ /[.]$/ ? " " : ". ") \
                    (tab[1, c] ~ /refuses$/ ? "Refused: " : tab[1, c] ": ") tab[r, c]
        if (body != "")
            text(body (body ~ /[.]$/ ? "" : "."))
    }
    print ".El"
    fresh = 0
    rows = 0
}
function wrap(s) { # words of a macro line that would be taken for macros
    s = inline(s)
    gsub(/"/, "\\(dq", s)
    return "\"" s "\""
}

NR == 1 {
    sub(/^# */, "")
    title = $0
    print ".\\\" Made from formats/" name ".md by man/format_page.awk: edit that."
    print ".Dd " date
    print ".Dt LONGLORA-" toupper(name) " 5"
    print ".Os"
    print ".Sh NAME"
    print ".Nm longlora-" name
    sub(/^[A-Z][a-z]/, tolower(substr(title, 1, 1)) substr(title, 2, 1), title)
    sub("^" name ": ", "", title)
    print ".Nd " title
    print ".Sh DESCRIPTION"
    fresh = 1
    next
}
/^```/ {
    if (fenced) {
        end_code()
        fenced = 0
    } else {
        end_list()
        fenced = code = 1
        print ".Bd -literal -offset indent"
    }
    next
}
fenced { line(escape($0)); next }
/^    / && !list && para == "" {
    end_table()
    if (!code)
        print ".Bd -literal -offset indent"
    code = 1
    line(escape(substr($0, 5)))
    fresh = 0
    next
}
/^\|/ {
    end_list()
    end_code()
    if ($0 ~ /^\|[ :|-]*-[ :|-]*\|$/)
        next
    rows++
    n = cells($0)
    if (rows == 1)
        cols = n
    for (c = 1; c <= cols; c++)
        tab[rows, c] = c <= n ? cell[c] : ""
    next
}
{ end_table(); if ($0 != "") end_code() }
/^## / {
    end_list()
    head = toupper(substr($0, 4))
    print ".Sh " (head == "EXAMPLE" ? "EXAMPLES" : wrap(head))
    fresh = 1
    next
}
/^###+ / {
    end_list()
    sub(/^#+ /, "")
    print ".Ss " wrap($0)
    fresh = 1
    next
}
/^[-*] / {
    flush()
    if (!list)
        print ".Bl -bullet"
    list = item = 1
    para = substr($0, 3)
    next
}
/^$/ {
    flush()
    next
}
{
    if (list && !item && para == "" && $0 !~ /^ /)
        end_list()
    sub(/^ +/, "")
    para = para (para == "" ? "" : " ") $0
}
END {
    end_list()
    end_code()
    end_table()
    print ".Sh SEE ALSO"
    print ".Xr linfo 1 ,\n.Xr longlora 7"
}
