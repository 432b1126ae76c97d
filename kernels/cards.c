/* kernels/cards.c - see cards.h. */
#include "kernels/cards.h"

#include <string.h>

/* In the order of CARDS; card_named takes the first whose name is part of the driver's. */
static const struct card cards[] = {
    { "H200",        139.8, 989,  4.8,   55 },
    { "H100 80GB HBM3", 79.2, 989, 3.35, 55 },
    { "H100",        79.2,  756,  2.0,   50 }, /* on a PCIe card */
    { "A100-SXM4-80GB", 79.2, 312, 2.04, 25 },
    { "A100",        39.4,  312,  1.56,  25 },
    { "L40S",        44.4,  362,  0.864, 25 },
    { "A6000",       47.4,  155,  0.768, 25 },
    { "RTX 4090",    23.5,  165,  1.008, 25 },
    { "RTX 3090",    23.5,  71,   0.936, 25 },
};

const struct card *card_at(int place)
{
    const int n = (int)(sizeof cards / sizeof *cards);

    return place >= 0 && place < n ? &cards[place] : NULL;
}

const struct card *card_named(const char *name)
{
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (strstr(name, cards[i].name))
            return &cards[i];
    return NULL;
}

/* Measured on an H200 over whole steps (tests/gpu/RESULTS.md): products of random numbers run
 * into the power limit; attention is cuDNN's. */
struct rates card_rates(const struct card *c)
{
    return (struct rates){ .matrix = 0.73e12 * c->tflops, .attention = 0.60e12 * c->tflops,
                           .attention_back = 0.56e12 * c->tflops, .memory = 0.78e12 * c->memory_tb,
                           .out = 1e9 * c->link_gb, .in = 1e9 * c->link_gb };
}
