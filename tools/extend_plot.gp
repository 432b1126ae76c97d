# tools/extend_plot.gp - draws what tools/extend_pg19.sh has measured with LoRA+ and RoPE by parts:
# gnuplot -e "data='WORK/plot.tsv'; out='WORK/extension.png'" tools/extend_plot.gp
set terminal pngcairo size 1300,850 font ",10"
set output out
set datafile separator "\t"
set multiplot layout 2,2
set grid
set offsets graph 0.05, graph 0.05, graph 0.1, graph 0.1
lengths = system(sprintf("cut -f2 %s | sort -nu | tr '\\n' ' '", data))
ways = system(sprintf("for w in dense s2-4 mix-4 mix-16 mix-16-20 mix-16-seconds mix-32; do awk -F'\\t' -v w=$w '$1 == \"run\" && $4 == w { n = 1 } END { if (n) print w }' %s; done | tr '\\n' ' '", data))
called(way) = way eq "mix-16-seconds" ? "mix-16, longer" : way
points(ctx, way) = sprintf("< awk -F'\\t' '$1 == \"run\" && $2 == %s && $3 == \"parts\" && $4 == \"%s\" && $5 == \"lora+\"' %s", ctx, way, data)
# tokens before, and the perplexity there over that of dense training
beside_dense(ctx, way) = sprintf("< awk -F'\\t' '$1 == \"curve\" && $2 == %s && $3 == \"parts\" && $5 == \"lora+\" { p[$4, $6] = $7; if ($4 == \"dense\") at[++n] = $6 } END { for (i = 1; i <= n; i++) if ((\"%s\", at[i]) in p) printf \"%%d\\t%%.6g\\n\", at[i], p[\"%s\", at[i]] / p[\"dense\", at[i]] }' %s", ctx, way, way, data)
set key outside right top vertical samplen 1
do for [ctx in lengths] {
    set title sprintf("to %s tokens: perplexity there, deviation over seeds", ctx)
    unset logscale x
    set xlabel "seconds of training"
    set ylabel "perplexity"
    set xrange [0:*]
    plot for [i=1:words(ways)] points(ctx, word(ways, i)) using 6:7:8 with yerrorbars pt 7 ps 1.5 lc i title called(word(ways, i))
}
do for [ctx in lengths] {
    set title sprintf("to %s tokens: beside dense training, by position", ctx)
    set logscale x 2
    set xlabel "tokens before"
    set ylabel "perplexity / that of dense"
    set xrange [32:*]
    plot for [i=1:words(ways)] beside_dense(ctx, word(ways, i)) using 1:2 with linespoints pt 7 lc i title called(word(ways, i))
}
