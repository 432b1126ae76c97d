/* kernels/cards.c - see cards.h. */
#include "kernels/cards.h"

#include <string.h>

/* Of cards whose driver does not tell: a low clock, and the memory's rate for each multiprocessor. */
#define USUAL_KHZ 1400000
#define USUAL_SM_TB 0.008

/* In the order of CARDS; card_named takes the first whose name is part of the driver's. */
static const struct card cards[] = {
    { "H200",        90, 139.8, 989,  4.8,   55, 132 },
    { "H100 80GB HBM3", 90, 79.2, 989, 3.35, 55, 132 },
    { "H100",        90, 79.2,  756,  2.0,   50, 114 }, /* on a PCIe card */
    { "A100-SXM4-80GB", 80, 79.2, 312, 2.04, 25, 108 },
    { "A100",        80, 39.4,  312,  1.56,  25, 108 },
    { "L40S",        89, 44.4,  362,  0.864, 25, 142 },
    { "A6000",       86, 47.4,  155,  0.768, 25, 84 },
    { "RTX 4090",    89, 23.5,  165,  1.008, 25, 128 },
    { "RTX 3090",    86, 23.5,  71,   0.936, 25, 82 },
    { "B200",        100, 178.4, 2250, 8.0,   55, 148 },
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

/* bf16 operations a clock of a multiprocessor. */
static double each_clock(const struct card_facts *f)
{
    if (f->arch == 80)
        return 2048;
    if (f->arch < 90)
        return strstr(f->name, "GeForce") ? 512 : 1024;
    return f->arch < 100 ? 4096 : f->arch < 120 ? 8192 : 1024;
}

struct rates card_rates_of(const struct card_facts *f)
{
    const struct card *known = card_named(f->name);
    int sms = f->sms > 0 ? f->sms : 1;
    struct card c = { .link_gb = 25 };

    if (known) {
        c = *known;
        if (strstr(f->name, " MIG ") && sms < c.sms) {
            c.tflops *= (double)sms / c.sms;
            c.memory_tb *= (double)sms / c.sms;
        }
        return card_rates(&c);
    }
    c.tflops = 1e-9 * (f->khz > 0 ? f->khz : USUAL_KHZ) * sms * each_clock(f);
    c.memory_tb = 1e-9 * f->memory_khz * 2 * f->bus_bits / 8;
    if (c.memory_tb <= 0)
        c.memory_tb = USUAL_SM_TB * sms;
    return card_rates(&c);
}
