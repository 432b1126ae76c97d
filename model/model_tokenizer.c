/* model/model_tokenizer.c - see model_tokenizer.h. */
#include "model/model_tokenizer.h"

#include "formats/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The error of data made with another tokenizer; m->remedy says what to do about it. */
static int another(struct model_tokenizer *m, const struct token_info *info, const char *data,
                   const char *path, struct err *e)
{
    snprintf(m->remedy, sizeof m->remedy, "prepare it with 'lprep -t %.300s'", path);
    return err_set(e, E_CONFIG, "'%.300s' was made with another tokenizer (%.150s) than '%.300s'",
                   data, *info->tokenizer ? info->tokenizer : info->fingerprint, path);
}

/* Compares with a tokenizer. One that was named has to be readable; one that only lies
 * in the model's folder may be of a kind unknown here, which leaves a doubt. */
static int compare_model(struct model_tokenizer *m, const struct token_info *info,
                         const char *data, const char *path, struct err *e)
{
    struct tokenizer *t;
    struct err why = { 0 };
    int rc = tokenizer_open(&t, path, m->given ? e : &why);

    if (rc < 0 && m->given)
        return rc;
    if (rc < 0) {
        snprintf(m->doubt, sizeof m->doubt, "cannot check whether '%.150s' was made with this "
                                            "model's tokenizer: %.*s", data,
                                            (int)strcspn(why.msg, "\n"), why.msg);
        return 0;
    }
    rc = tokenizer_made(t, info->fingerprint, info->tokenizer)
             ? 0 : another(m, info, data, path, e);
    tokenizer_close(t);
    return rc;
}

/* The named tokenizer, else the folder's, as transformers would load it. Data without a fingerprint
 * cannot be compared. */
int model_tokenizer_check(struct model_tokenizer *m, const struct token_info *info,
                          const char *data, struct err *e)
{
    char *path = m->given ? strdup(m->given) : tokenizer_in_folder(m->folder);
    int rc = 0;

    m->doubt[0] = m->remedy[0] = '\0';
    if (m->given && !path)
        rc = err_set(e, E_SYS, "out of memory");
    else if (path && *info->fingerprint)
        rc = compare_model(m, info, data, path, e);
    free(path);
    return rc;
}
