# tools/extend_plot.gp - draws what tools/extend_pg19.sh has measured:
# gnuplot -e "data='WORK/plot.tsv'; out='WORK/extension.png'" tools/extend_plot.gp
set terminal pngcairo size 1500,900 font ",10"
set output out
set datafile separator "\t"
set multiplot layout 2,2
set grid
set logscale y
set autoscale yfix
set offsets graph 0, graph 0, graph 0.05, graph 0.05
set ytics (20,25,30,35,40,42,44,46,48,50,55,60,70,80,100,120,150,200,300,400,500,600)
rows(kind, ctx, rope, way) = sprintf("< awk -F'\\t' '$1 == \"%s\" && $2 == %s && $3 == \"%s\" && $4 == \"%s\" && $5 == \"lora+\"' %s", kind, ctx, rope, way, data)
lengths = system(sprintf("cut -f2 %s | sort -nu | tr '\\n' ' '", data))
ways = "dense s2-4 mix-4 mix-16"
more = "mix-16-seconds mix-16-20 mix-32" # beside them, where they were run: by parts alone
called(way) = way eq "mix-16-seconds" ? "mix-16, longer" : way
ran(way, ctx) = int(system(sprintf("awk -F'\t' '$1 == \"run\" && $2 == %s && $4 == \"%s\" { n++ } END { print n + 0 }' %s", ctx, way, data)))
set key outside right top vertical samplen 1
do for [ctx in lengths] {
    set title sprintf("to %s tokens: perplexity there by seconds of training (LoRA+)", ctx)
    unset logscale x
    set xlabel "seconds of training"
    set ylabel "perplexity"
    set xrange [0:*]
    plot for [i=1:words(ways)] rows("run", ctx, "parts", word(ways, i)) using 6:7:8 with yerrorbars pt 7 ps 1.5 lc i title "by parts, ".word(ways, i), \
        for [i=1:words(ways)] rows("run", ctx, "pi", word(ways, i)) using 6:7:8 with yerrorbars pt 6 ps 1.5 lc i title "PI, ".word(ways, i), \
        for [way in more] rows("run", ctx, "parts", ran(way, ctx) ? way : "dense") using 6:7:8 with yerrorbars pt 13 ps 1.5 lc \
            (ran(way, ctx) ? 5 + strlen(way) % 4 : 1) title ran(way, ctx) ? "by parts, ".called(way) : ""
}
do for [ctx in lengths] {
    set title sprintf("to %s tokens: perplexity by the number of tokens before", ctx)
    set logscale x 2
    set xlabel "tokens before"
    set xrange [16:*]
    plot for [i=1:words(ways)] rows("curve", ctx, "parts", word(ways, i)) using 6:7 with linespoints pt 7 lc i title "by parts, ".word(ways, i), \
        for [i=1:words(ways)] rows("curve", ctx, "pi", word(ways, i)) using 6:7 with linespoints pt 6 dt 2 lc i title "PI, ".word(ways, i)
}
