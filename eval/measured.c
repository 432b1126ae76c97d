/* eval/measured.c - see measured.h. */
#include "eval/measured.h"

#include "base/opt.h"
#include "base/plot.h"
#include "eval/identity.h"
#include "eval/json_fields.h"

#include <inttypes.h>
#include <stdio.h>

void measured_fill(struct measured *m, const struct eval *v, const char *label)
{
    eval_label(v, label, m->label, sizeof m->label);
    snprintf(m->model, sizeof m->model, "%s", v->o->model);
    snprintf(m->adapter, sizeof m->adapter, "%s", v->o->adapter ? v->o->adapter : "");
    eval_rope(v, m->rope, sizeof m->rope);
    for (int64_t i = 0; i < v->n; i++)
        if (config_reach(&v->config[i]) > m->context)
            m->context = config_reach(&v->config[i]);
}

void measured_device(struct measured *m, const struct eval *v)
{
    snprintf(m->device, sizeof m->device, "%s, %s", v->s.device.name, v->s.device.detail);
}

int measured_line(struct buf *out, const struct measured *m, struct err *e)
{
    char text[1400];
    int rc;

    snprintf(text, sizeof text, "model     %s%s%s (context %" PRId64 ", rope %s)", m->model,
             m->adapter[0] ? " + " : "", m->adapter, m->context, m->rope);
    rc = buf_add_clean(out, text, e);
    return rc < 0 ? rc : buf_add(out, "\n", 1, e);
}

json_t *measured_json(const struct measured *m, const char *kind)
{
    json_t *o = json_object();

    json_object_set_new(o, "leval", json_string(LONGLORA_VERSION));
    if (kind)
        json_object_set_new(o, "kind", json_string(kind));
    json_object_set_new(o, "label", field_text(m->label));
    json_object_set_new(o, "model", field_text(m->model));
    json_object_set_new(o, "adapter", m->adapter[0] ? field_text(m->adapter) : json_null());
    json_object_set_new(o, "context", json_integer(m->context));
    json_object_set_new(o, "rope", field_text(m->rope));
    json_object_set_new(o, "device", field_text(m->device));
    return o;
}

int measured_read(struct measured *m, const struct js *o, struct err *e)
{
    int rc;

    if ((rc = field_get_text(o, "label", m->label, sizeof m->label, e)) < 0 ||
        (rc = field_get_text(o, "model", m->model, sizeof m->model, e)) < 0 ||
        (rc = field_get_text(o, "adapter", m->adapter, sizeof m->adapter, e)) < 0 ||
        (rc = field_get_text(o, "rope", m->rope, sizeof m->rope, e)) < 0)
        return rc;
    return js_i64(o, "context", JS_MAY, 0, (int64_t)1 << 40, &m->context, e);
}
