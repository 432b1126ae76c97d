/* tests/bench_minhash.c - the speed of near-copy signatures and contamination, one core. */
#include "base/file.h"
#include "prep/contam.h"
#include "prep/minhash.h"
#include "tests/benchrow.h"

#define BYTES ((size_t)16 << 20)
#define DOC_BYTES ((size_t)20 << 10)

int main(void)
{
    static struct minhash m;
    struct contam *c;
    struct doc d = { 0 };
    struct err e = { 0 };
    struct buf all = { 0 };
    uint64_t key[MINHASH_BANDS_MAX], x = 1, sum = 0;
    double t0, best[2] = { 1e9, 1e9 };

    /* Words of 1 to 9 letters, five on average, as in a book. */
    while (all.len < BYTES) {
        char word[12];
        int n;
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
        n = 1 + (int)(x >> 60) % 9;
        for (int i = 0; i < n; i++)
            word[i] = (char)('a' + (x >> (10 + 5 * i) & 31) % 26);
        word[n] = ' ';
        if (buf_add(&all, word, (size_t)n + 1, &e) < 0)
            return 1;
    }
    minhash_init(&m, 14, 8, 5);
    if (contam_open(&c, 13, &e) < 0)
        return 1;
    d.text = (struct buf){ all.p, 1 << 20, 0 };
    if (contam_add(c, &d, &e) < 0)
        return 1;
    for (int round = 0; round < 5; round++)
        for (int what = 0; what < 2; what++) {
            double s;
            t0 = cpu_s();
            for (size_t at = 1 << 20; at + DOC_BYTES <= all.len; at += DOC_BYTES) {
                d.text = (struct buf){ all.p + at, DOC_BYTES, 0 };
                if (what)
                    sum += contam_shares(c, &d);
                else
                    sum += minhash_keys(&m, &d, key) + key[0];
            }
            s = cpu_s() - t0;
            best[what] = s < best[what] ? s : best[what];
        }
    if (bench_table()) {
        char ours[32];
        double rate = (double)(BYTES - (1 << 20)) / best[0] / 1e6;
        snprintf(ours, sizeof ours, "%.0f MB/s", rate);
        bench_row("near-copy signatures, 14 x 8 of 5-grams", ours, "", rate, 200, 300, " MB/s",
                  false);
        return 0;
    }
    printf("near-copy signatures, 14 x 8 over 5-grams: %.0f MB/s a core\n",
           (double)(BYTES - (1 << 20)) / best[0] / 1e6);
    printf("13-grams against %lld of them: %.0f MB/s a core\n", (long long)contam_grams(c),
           (double)(BYTES - (1 << 20)) / best[1] / 1e6);
    contam_close(c);
    buf_free(&all);
    return sum == 1;
}
