/* kernels/wires.c - see wires.h. */
#include "kernels/wires.h"

#include "base/opt.h"

#include <string.h>

/* NVLink 4: 559 MB added in 1.8 ms on two H200 by NCCL. PCIe 5: copies both ways at once on the
 * same host. The others in proportion to what they are sold as; networks at 0.93 of it. */
static const struct { const char *name; double rate; } wires[] = {
    { "nvlink5", 620e9 }, { "nvlink4", 310e9 }, { "nvlink3", 205e9 }, { "pcie5", 36e9 },
    { "pcie4", 18e9 }, { "800g", 93e9 }, { "400g", 46.5e9 }, { "200g", 23e9 }, { "100g", 11.6e9 },
    { "10g", 1.16e9 },
};
static const struct { const char *card, *wire; } usual[] = {
    { "B200", "nvlink5" }, { "H200", "nvlink4" }, { "H100 80GB HBM3", "nvlink4" },
    { "A100-SXM4-80GB", "nvlink3" }, { "H100", "pcie5" },
};

bool wire_rate(const char *text, double *rate)
{
    int64_t n;

    for (size_t i = 0; i < sizeof wires / sizeof *wires; i++)
        if (strcmp(text, wires[i].name) == 0) {
            *rate = wires[i].rate;
            return true;
        }
    if (!num_bytes(text, &n) || n < 1)
        return false;
    *rate = (double)n;
    return true;
}

const char *wire_of_card(const char *card)
{
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (strcmp(card, usual[i].card) == 0)
            return usual[i].wire;
    return "pcie4";
}

double wire_sum_s(double nbytes, int64_t ranks, double rate)
{
    return ranks > 1 ? 2 * nbytes * (double)(ranks - 1) / (double)ranks / rate : 0;
}
