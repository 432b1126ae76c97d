# docs/extension.gp - draws docs/extension.png: gnuplot docs/extension.gp
set terminal pngcairo size 1000,420 font ",10"
set output "docs/extension.png"
set multiplot layout 1,2
set logscale xy
set xtics (1024,2048,4096,8192)
set ytics (40,50,60,70,80,100,120)
set yrange [38:125]
set xrange [950:9000]
set key top left
set xlabel "context (tokens)"
set ylabel "perplexity"
set datafile separator "\t"
set title "extended to 4096"
plot for [i=2:6] "docs/extension.tsv" using 1:i with linespoints pt 7 title columnheader(i)
set title "extended to 8192"
plot "docs/extension.tsv" using 1:2 with linespoints pt 7 title "base", for [i=7:10] "docs/extension.tsv" using 1:i with linespoints pt 7 title columnheader(i)
