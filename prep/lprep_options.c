/* prep/lprep_options.c - the options of lprep, one row each, by the headings of --help. */
#include "prep/lprep_options.h"

#include "base/opt_rows.h"
#include "prep/minhash.h"

/* A row: letter (0: none), name, argument, type, where the value goes, least and largest
 * value (0 and 0 where the type has none), help. What stands in [] is the default. OPT_RESULT: the
 * documents depend on it, so that a run is only continued with the same (resume.h). */
static void main_rows(struct opt_table *t, struct args *a)
{
    const struct opt rows[] = {
        { 't', "tokenizer", "FILE", OPT_STR, &a->tokenizer, 0, 0,
          "tokenizer that makes the tokens, or a model's folder" },
        { 0, "text", NULL, OPT_FLAG | OPT_RESULT, &a->prep.text, 0, 0,
          "write documents as JSON lines, not tokens" },
        { 'o', "output", "FILE", OPT_STR, &a->output, 0, 0,
          "output file, written whole or not at all [-]" },
        ROW_FORCE(&a->force, "replace the output file"),
        OPT_END
    };

    opt_add(t, rows);
}

/* Which documents are read at all, and which of them are kept. */
static void document_rows(struct opt_table *t, struct args *a)
{
    const struct opt rows[] = {
        OPT_HEADING("which documents"),
        { 0, "include", "GLOB", OPT_LIST | OPT_RESULT, &a->include, 0, 0,
          "read files of these names in folders, archives" },
        { 0, "part", "K/N|auto", OPT_STR, &a->part, 0, 0,
          "only the K-th of N parts of the files [all]" },
        { 0, "mpi", NULL, OPT_FLAG, &a->mpi, 0, 0,
          "the same as --part auto, for mpirun and srun" },
        { 0, "format", "auto|text|json|lines", OPT_ENUM | OPT_RESULT, &a->format, 0, 0,
          "contents of files, whatever their names [auto]" },
        { 0, "field", "NAME", OPT_STR | OPT_RESULT, &a->prep.feed.doc.field, 0, 0,
          "key that holds the text [by schema]" },
        { 0, "source", "NAME", OPT_STR | OPT_RESULT, &a->prep.feed.doc.source, 0, 0,
          "source of all documents [by schema]" },
        { 0, "min-chars", "N", OPT_I64 | OPT_RESULT, &a->prep.feed.filter.min_chars, 0, 1e15,
          "leave out documents of fewer characters [0]" },
        { 0, "max-chars", "N", OPT_I64 | OPT_RESULT, &a->prep.feed.filter.max_chars, 0, 1e15,
          "leave out longer documents, 0: none [0]" },
        { 0, "min-tokens", "N", OPT_TOKENS | OPT_RESULT, &a->prep.min_tokens, 0, 1e15,
          "leave out documents of fewer tokens [0]" },
        { 0, "max-tokens", "N", OPT_TOKENS | OPT_RESULT, &a->prep.max_tokens, 0, 1e15,
          "leave out longer documents, 0: none [0]" },
        { 0, "language", "LIST", OPT_STR | OPT_RESULT, &a->prep.feed.filter.languages, 0, 0,
          "keep only rows in one of these languages" },
        { 0, "where", "KEY=REGEX", OPT_LIST | OPT_RESULT, &a->where, 0, 0,
          "keep only rows whose key matches: meta.url=org" },
        { 0, "where-not", "KEY=REGEX", OPT_LIST | OPT_RESULT, &a->where_not, 0, 0,
          "leave out rows whose key matches" },
        { 0, "sample", "SOURCE=RATE", OPT_LIST | OPT_RESULT, &a->sample, 0, 0,
          "keep this share of a source, chosen by hash" },
        ROW_SEED(&a->prep.feed.filter.seed, OPT_RESULT,
                 "seed of the choice by --sample [0]"),
        { 0, "max-docs", "N", OPT_I64 | OPT_RESULT, &a->prep.feed.max_docs, 0, 1e15,
          "stop after N documents, 0: all [0]" },
        { 0, "max-record", "SIZE", OPT_BYTES | OPT_RESULT, &a->max_record, 1024, (double)((int64_t)1 << 30),
          "longest text file or row [16m]" },
        { 0, "on-error", "stop|skip", OPT_ENUM | OPT_RESULT, &a->on_error, 0, 0,
          "what to do at a bad document or file [stop]" },
        { 0, "skipped", "FILE", OPT_STR, &a->skipped, 0, 0,
          "list what was skipped, one line each" },
        { 0, "utf8", "strict|replace", OPT_ENUM | OPT_RESULT, &a->utf8, 0, 0,
          "invalid UTF-8: an error, or U+FFFD [strict]" },
        OPT_END
    };

    opt_add(t, rows);
}

/* Copies of other documents, and text that evaluations use. Bands and rows at their most are
 * 32 x 16 = MINHASH_MAX hashes. */
static void copy_rows(struct opt_table *t, struct args *a)
{
    const struct opt rows[] = {
        OPT_HEADING("copies"),
        { 0, "dedup", "off|exact|near", OPT_ENUM | OPT_RESULT, &a->dedup, 0, 0,
          "leave out copies of earlier documents [off]" },
        { 0, "dedup-memory", "SIZE", OPT_BYTES | OPT_RESULT, &a->dedup_bytes, 65536, 1e13,
          "exact up to this size, approximate beyond [256m]" },
        { 0, "removed", "FILE", OPT_STR, &a->removed, 0, 0,
          "list each copy left out, and its original" },
        { 0, "near-bands", "N", OPT_I64 | OPT_RESULT, &a->bands, 1, MINHASH_BANDS_MAX,
          "MinHash bands; one in common is a near copy [14]" },
        { 0, "near-rows", "N", OPT_I64 | OPT_RESULT, &a->rows, 1, 16, "hashes in a band [8]" },
        { 0, "near-words", "N", OPT_I64 | OPT_RESULT, &a->words, 1, 32, "words in an n-gram [5]" },
        { 0, "decontaminate", "FILE", OPT_LIST | OPT_RESULT, &a->eval, 0, 0,
          "leave out what shares an n-gram with this text" },
        { 0, "contam-words", "N", OPT_I64 | OPT_RESULT, &a->eval_words, 1, 32, "words in that n-gram [13]" },
        OPT_END
    };

    opt_add(t, rows);
}

/* How a document becomes tokens. */
static void token_rows(struct opt_table *t, struct args *a)
{
    const struct opt rows[] = {
        OPT_HEADING("tokens"),
        { 0, "add-bos", NULL, OPT_FLAG | OPT_RESULT, &a->prep.add_bos, 0, 0, "begin documents with BOS" },
        { 0, "no-eos", NULL, OPT_FLAG | OPT_RESULT, &a->prep.no_eos, 0, 0, "do not end documents with EOS" },
        { 0, "prompt", "llama2|alpaca", OPT_ENUM | OPT_RESULT, &a->prompt, 0, 0,
          "template for instructions [llama2]" },
        { 0, "engine", "own|sentencepiece", OPT_ENUM, &a->engine, 0, 0,
          "tokenizer code; both give the same ids [own]" },
        OPT_END
    };

    opt_add(t, rows);
}

/* What does not change the documents: threads, continuing a run, messages. */
static void run_rows(struct opt_table *t, struct args *a)
{
    const struct opt rows[] = {
        OPT_HEADING("running"),
        ROW_THREADS(&a->threads),
        { 0, "resume", "DIR", OPT_STR, &a->resume, 0, 0,
          "skip inputs that lpack -o DIR already has" },
        { 0, "stats", "FILE", OPT_STR, &a->stats, 0, 0, "write the counts to FILE as JSON" },
        ROW_JSON(&a->json, "print the counts as JSON, on stderr without -o"),
        ROW_QUIET(&a->quiet, "warnings only"),
        ROW_VERBOSE(&a->verbose, "say more"),
        OPT_END
    };

    opt_add(t, rows);
}

/* The order is that of --help. */
void lprep_rows(struct opt_table *t, struct args *a)
{
    main_rows(t, a);
    document_rows(t, a);
    copy_rows(t, a);
    token_rows(t, a);
    run_rows(t, a);
}
