/* prep/prep.h - lprep as a function: documents in, a token stream or JSON lines out. */
#ifndef PREP_PREP_H
#define PREP_PREP_H
#include "base/err.h"
#include "formats/tokens/tally.h"
#include "formats/tokenizer/tokenizer.h"
#include "prep/contam.h"
#include "prep/dedup.h"
#include "prep/feed.h"
#include "prep/minhash.h"
#include "prep/removed.h"
C_BEGIN

/* At most as many sources as a shard holds; the documents of further ones become "other", in
 * the token stream too. */
struct prep_counts {
    struct tally_source all; /* bad documents too */
    struct tally by;
    struct source_progress read;
};
/* The counts of a source, made if need be. E_SYS. */
int prep_counts_of(struct prep_counts *c, const char *source, struct tally_source **s,
                   struct err *e);
void prep_counts_free(struct prep_counts *c);

/* Processor time so far of the thread that reads and unpacks, of those that parse and encode
 * together, and of the one that writes: the stage near one second a second is the slowest. */
struct prep_load {
    double read_s, encode_s, write_s;
    int encoders; /* threads */
};
typedef void prep_tick_fn(void *ctx, const struct prep_counts *c, const struct prep_load *load);
/* Called once all documents are out, before END says so. What it writes is there whenever a reader
 * has seen the stream whole; as it fails, so does the run, and the stream has no END. */
typedef int prep_whole_fn(void *ctx, const struct prep_counts *c, struct err *e);

struct resume; /* resume.h */
struct prep_opts {
    struct feed_opts feed;
    bool text;            /* JSON lines in place of tokens */
    bool add_bos, no_eos; /* of plain documents; instructions always get BOS */
    int64_t min_tokens, max_tokens; /* BOS and EOS among them; max 0: no limit */
    const struct contam *contam; /* what shares an n-gram with it is left out; may be NULL */
    struct dedup *seen;          /* copies are left out, and found here; may be NULL */
    const struct minhash *near;  /* with seen: near copies too; may be NULL */
    struct removed *removed;     /* lists what is left out; may be NULL */
    struct resume *resume;       /* opened; what it has is left out; may be NULL */
    enum prompt prompt;
    int threads;          /* that tokenise; 0: the processors this process may use */
    prep_tick_fn *tick;   /* after every document, may be NULL */
    void *tick_ctx;
    prep_whole_fn *whole; /* may be NULL */
    void *whole_ctx;
};

/* Tokens of one document as the reference makes them, malloc'ed; the caller frees.
 * plain: [BOS] text [EOS]. instruction: BOS prompt+output [EOS], encoded as one text; *masked
 * is how many tokens at its front are those of BOS prompt encoded alone. */
int prep_encode(const struct tokenizer *t, const struct doc *d, const struct prep_opts *o,
                struct token_doc *out, int64_t *masked, struct err *e);

/* What data calls the tokenizer at path: in a model's folder (a config.json lies beside it) by its
 * absolute path, so that the data remembers the model (model/remembered.h); else as it is given, or
 * its last name where that is too long. False: it is in such a folder, whose path is too long, not
 * UTF-8 or has control characters, and so is not remembered. cap: at least 2. */
bool prep_tokenizer_name(const char *path, char *out, size_t cap);

/* What all documents have in common. E_CONFIG for a BOS or EOS that the tokenizer has not. */
int prep_info(const struct tokenizer *t, const struct prep_opts *o, struct token_info *info,
              struct err *e);

/*
 * Reads and unpacks in one thread, parses and encodes in o->threads others, writes in the
 * caller's, in input order: the output is the same for any number of threads. At most 12 MiB of
 * records, and 4 for each thread beyond two, wait at once, or one batch (feed.h) if that is
 * longer. t may be NULL with o->text. name is of fd, for messages.
 * After an error the stream has no END, so that no reader takes it for whole.
 * E_NOINPUT, E_DATA, E_IO, E_SYS; E_CONFIG for a BOS or EOS that the tokenizer has not.
 */
int prep_run(const char *const *operands, int n, const struct prep_opts *o,
             const struct tokenizer *t, int fd, const char *name, struct prep_counts *c,
             struct err *e);

C_END
#endif
