/* model/flops.c - see flops.h. */
#include "model/flops.h"

double model_flops(const struct llama_config *c, enum train_mode mode,
                   const struct segments *seg)
{
    double q = (double)config_size(c, SIZE_Q), all = (double)config_products(c), pairs = 0,
           tokens = 0, windowed = 0;

    /* a segment of n tokens has n (n + 1) / 2 pairs; those farther apart than the window of a
     * layer drop out */
    for (int64_t l = 0; l < c->layers; l++)
        windowed += config_window(c, l) > 0;
    for (int h = 0; h < 2; h++)
        for (int64_t i = 0; i < seg->half[h].n; i++) {
            double n = (double)(seg->half[h].cu[i + 1] - seg->half[h].cu[i]);
            double far = c->window && n > (double)c->window ? n - (double)c->window : 0;
            pairs += ((double)c->layers * n * (n + 1) - windowed * far * (far + 1)) / 4; /* half of the heads */
            tokens += n / 2;
        }
    /* A product costs 2 operations for each weight and token. The backward costs as much again
     * for the gradient of the input, and again for that of the weight, which frozen ones do
     * not have. */
    return 2 * all * tokens * (mode == TRAIN_NONE ? 1 : mode == TRAIN_FULL ? 3 : 2) +
           (mode == TRAIN_NONE ? 1 : 3) * 4 * q * pairs;
}
