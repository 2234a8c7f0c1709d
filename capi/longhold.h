/* longhold.h: a memory for models that another engine runs.
 *
 * The engine reads a text and puts its tokens here with their attention keys and values. For a
 * question longhold names the spans that matter (lh_plan) and gives their keys and values at
 * positions that the engine chooses (lh_fetch). The engine then computes the answer over the
 * recalled prompt: the document's first tokens (attention sinks), the spans, and the question.
 *
 *   lh_home* home;
 *   lh_open(&options, &model, &home);
 *   lh_writer* writer;
 *   lh_put_begin(home, "books", &document, &writer);     // text and tokens
 *   lh_put_rows(writer, &rows);                          // keys and values, pass by pass
 *   lh_put_finish(writer);
 *   lh_plan* plan;
 *   lh_plan_make(home, "books", &question, &plan);       // which spans matter
 *   lh_fetch(home, "books", &place, 1, &rows);           // their keys and values
 *   lh_plan_free(plan);
 *   lh_close(home);
 *
 * Memories are those of the command line: `longhold list`, `show`, `export`, `verify` and `forget`
 * work on them. A memory belongs to one model, by its fingerprint. Another model is refused by name.
 *
 * Errors. Every function that can fail returns an lh_status. lh_message() then has one line that
 * names the object and the next step. No function throws or aborts on bad input or damaged files.
 * Out-parameters are set only on LH_OK.
 *
 * Threads. All functions may be called from any thread. Calls on one home run one at a time. A
 * plan is immutable; lh_plan_* accessors need no lock.
 *
 * Memory. Structures are the caller's, and are read only during the call. Strings that longhold
 * returns live as long as the object that they belong to.
 *
 * Stability. Structures begin with `size`, which the caller sets to sizeof. Members are only added
 * at the end, and 0 always means the default. Functions and values of enums never change.
 */
#ifndef LONGHOLD_H
#define LONGHOLD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LH_API __attribute__((visibility("default")))
/* Increases when functions or members are added. */
#define LH_VERSION 1

typedef enum lh_status {
  LH_OK = 0,
  LH_INVALID_ARGUMENT = 1,    /* wrong in any state */
  LH_NOT_FOUND = 2,
  LH_ALREADY_EXISTS = 3,
  LH_FAILED_PRECONDITION = 4, /* another model's memory; another process writes to it */
  LH_RESOURCE_EXHAUSTED = 5,  /* disk or memory budget */
  LH_DEADLINE_EXCEEDED = 6,
  LH_CANCELLED = 7,
  LH_UNAVAILABLE = 8,         /* may succeed later */
  LH_DATA_LOSS = 9,           /* stored bytes are damaged or missing */
  LH_UNIMPLEMENTED = 10,
  LH_INTERNAL = 11            /* a bug in longhold */
} lh_status;

/* Of the calling thread's last failed call, and valid until its next one; "" before the first. */
LH_API const char* lh_message(void);
/* LH_VERSION of the library that was loaded. */
LH_API int lh_version(void);

typedef struct lh_home lh_home;
typedef struct lh_writer lh_writer;
typedef struct lh_plan lh_plan;

/* ------------------------------------------------------------------------------- the model */

/* Rotary position embedding of one layer.
 * Angle of pair i at position p: freq_scale * p * freq_base^(-2 i / rotary_dims) / freq_factors[i] */
typedef struct lh_rope {
  size_t size;
  uint32_t rotary_dims;      /* even; at most head_dim. 0: keys are not rotated */
  int halves;                /* 1: pairs (i, i + rotary_dims/2), as in transformers; 0: (2i, 2i+1) */
  float freq_base;
  float freq_scale;          /* 0: 1 */
  float attn_factor;         /* multiplies cos and sin; 0: 1 */
  const float* freq_factors; /* [rotary_dims / 2]; NULL: all 1 */
} lh_rope;

/* A query or recall head: its keys are indexed, and a question's queries find the spans that it
 * attends to. */
typedef struct lh_head {
  uint32_t layer;   /* the model's layer number */
  uint32_t kv_head;
} lh_head;

typedef struct lh_model {
  size_t size;
  const char* name;         /* for people */
  const char* fingerprint;  /* 1 to 64 letters, digits, '.', '_', '-'. Must change whenever weights,
                               tokenizer or precision do */
  uint32_t layer_count;     /* of the model */
  uint32_t q_heads, kv_heads, head_dim;
  float scale;              /* logit = scale * q.k; 0: 1 / sqrt(head_dim) */
  uint32_t context_length;  /* tokens */
  /* The layers whose keys and values are put, ascending; NULL: all. */
  const uint32_t* layers;
  uint32_t layers_count;
  const lh_rope* rope;      /* [rope_count]: one for all those layers, or one for each */
  uint32_t rope_count;
  /* The text of each token of the vocabulary, in bytes: the concatenation of a text's tokens is the
   * text. Control tokens have none. */
  const char* const* pieces;    /* [vocab_size] */
  const uint32_t* piece_bytes;  /* [vocab_size] */
  uint32_t vocab_size;
  int32_t bos;                  /* the token that begins every sequence; -1: none */
  const lh_head* recall_heads;  /* of new memories; NULL: none, which is a good default */
  uint32_t recall_heads_count;
} lh_model;

/* -------------------------------------------------------------------------------- the home */

typedef struct lh_options {
  size_t size;
  const char* home;       /* directory of memories; NULL: $LONGHOLD_HOME, else the default of the
                             program `longhold`, $XDG_DATA_HOME/longhold or
                             ~/.local/share/longhold. Its settings file is not read */
  uint64_t budget_bytes;  /* RAM for indexes and blocks; 0: 1 GiB */
  const char* codec;      /* of new memories: "exact", "k5v4" (default), "k4v4", "archive" */
  const char* embedder;   /* GGUF file of an embedding model, such as all-MiniLM-L6-v2, which finds
                             places by meaning; NULL: none */
  int read_only;
  const char* gguf;       /* GGUF file of a language model that longhold itself runs, so that
                             lh_ingest can read texts; then the `model` of lh_open is NULL */
  uint32_t threads;       /* of that model; 0: one for each processor */
} lh_options;

/* Opens a home for one model: a description of the caller's, or the GGUF of `options`. Several homes
 * may be open, also of one directory and by several processes. A memory has one writer at a time.
 * Errors: LH_INVALID_ARGUMENT, LH_RESOURCE_EXHAUSTED, LH_NOT_FOUND (the embedder or the GGUF),
 * LH_FAILED_PRECONDITION (no directory is named, and the user has no home). */
LH_API lh_status lh_open(const lh_options* options, const lh_model* model, lh_home** home);
/* Writers and plans of the home must be gone. NULL is allowed. */
LH_API void lh_close(lh_home* home);

/* --------------------------------------------------------------------------------- putting */

typedef struct lh_document {
  size_t size;
  const char* name;      /* within its memory: a path, a title, a conversation's id */
  const char* text;      /* UTF-8 */
  size_t text_bytes;
  const int32_t* tokens; /* all of the text's, with bos where the model has one */
  size_t tokens_count;
  /* Bytes of text for each token; their sum is text_bytes. NULL: the lengths of the pieces. */
  const uint16_t* token_bytes;
} lh_document;

/* Keys and values of consecutive tokens in all layers that the model puts.
 * Element (token t, KV head h, channel c) of a layer is at t * token_stride + h * head_stride + c. */
typedef struct lh_rows {
  size_t size;
  void* const* keys;    /* [layers] each; read by lh_put_rows, written by lh_fetch */
  void* const* values;
  size_t tokens;
  size_t token_stride;  /* in elements; 0: kv_heads * head_dim */
  size_t head_stride;   /* in elements; 0: head_dim */
  int float32;          /* 0: IEEE half precision; 1: single precision */
  int rotated;          /* whether keys are rotated to positions */
  int64_t position;     /* of the first row, when rotated; may be negative */
} lh_rows;

/* Begins to put a document, or continues after an interruption. The memory is made when there is
 * none. While the writer lives, no other process or writer may write to the memory. Errors:
 * LH_FAILED_PRECONDITION, LH_INVALID_ARGUMENT, LH_RESOURCE_EXHAUSTED. */
LH_API lh_status lh_put_begin(lh_home* home, const char* memory, const lh_document* document,
                              lh_writer** writer);
/* How many of the document's tokens are stored: rows are expected from there on. All of them when
 * the memory has the content already, under any name. */
LH_API uint64_t lh_put_position(const lh_writer* writer);
/* Its id within the memory, for lh_place: so that rows which are committed can be fetched. */
LH_API uint32_t lh_put_document(const lh_writer* writer);
/* Appends rows. They are committed every 4,096 tokens; what was committed survives kill -9. Errors:
 * LH_INVALID_ARGUMENT (more rows than tokens, an element that is not finite), LH_RESOURCE_EXHAUSTED. */
LH_API lh_status lh_put_rows(lh_writer* writer, const lh_rows* rows);
/* Commits and ends the writer, also on an error. Without all rows the document stays unfinished:
 * what is committed can be recalled, and lh_put_begin continues it. */
LH_API lh_status lh_put_finish(lh_writer* writer);

/* Reads a text by the model of lh_options.gguf, and returns when all of it is stored. The same text
 * is never read twice. Other calls on the home wait. Errors: LH_FAILED_PRECONDITION (no such model;
 * another model's memory), LH_INVALID_ARGUMENT, LH_RESOURCE_EXHAUSTED. */
LH_API lh_status lh_ingest(lh_home* home, const char* memory, const char* name, const char* text,
                           size_t text_bytes);

/* ------------------------------------------------------------------------------- planning */

/* Queries of the recall heads for some tokens of a question. */
typedef struct lh_queries {
  size_t size;
  /* [heads of the memory] each [tokens, q_heads / kv_heads, head_dim], float32; in the order of
   * lh_model.recall_heads. */
  const float* const* queries;
  size_t tokens;
  int rotated;       /* whether they are rotated to positions */
  int64_t position;  /* of the first token, when rotated */
} lh_queries;

typedef struct lh_question {
  size_t size;
  const char* text;           /* UTF-8; may be NULL when there are queries */
  const lh_queries* queries;  /* NULL: none; words, and meaning with an embedder, find the spans */
  uint32_t spans_max;         /* 0: the default, 16 */
  uint32_t tokens_max;        /* of all spans together; 0: no limit. The best spans that fit stay */
} lh_question;

typedef struct lh_span {
  size_t size;
  uint32_t document;            /* its id within the memory */
  uint64_t begin, end;          /* tokens of the document */
  uint64_t date_begin, date_end;/* the line that says when it was said; empty where none does. It
                                   belongs before the span */
  uint64_t byte_begin, byte_end;/* of the document's text */
  uint64_t line_begin, line_end;/* 1-based, inclusive */
  double score;                 /* relevance; 1 is the best span's */
  const char* document_name;
  const char* text;
  const char* date_line;        /* "" where none */
} lh_span;

/* How much the memory speaks for there being an answer in it. */
typedef enum lh_evidence { LH_EVIDENCE_NONE = 0, LH_EVIDENCE_WEAK = 1, LH_EVIDENCE_STRONG = 2 } lh_evidence;

/* Errors: LH_NOT_FOUND, LH_FAILED_PRECONDITION (another model's memory), LH_INVALID_ARGUMENT. */
LH_API lh_status lh_plan_make(lh_home* home, const char* memory, const lh_question* question,
                              lh_plan** plan);
LH_API void lh_plan_free(lh_plan* plan);
LH_API size_t lh_plan_count(const lh_plan* plan);
/* Best first. Must hold: i < lh_plan_count. `size` must be set. */
LH_API void lh_plan_span(const lh_plan* plan, size_t i, lh_span* span);
LH_API lh_evidence lh_plan_evidence(const lh_plan* plan);
/* Share of the recall heads' attention that the spans hold, 0 to 1; -1 without queries. */
LH_API double lh_plan_coverage(const lh_plan* plan);

/* ------------------------------------------------------------------------------- fetching */

/* Tokens of a document, and where their keys go. */
typedef struct lh_place {
  size_t size;
  uint32_t document;
  uint64_t begin, end;
  int64_t position;  /* to which the first token's key is rotated */
} lh_place;

/* Copies the tokens of several places, one after the other, into `rows`: rows->tokens is their sum,
 * `rotated` says whether keys are rotated to the places' positions, and rows->position is not used.
 * Errors: LH_DATA_LOSS (a damaged block: nothing is to be used), LH_INVALID_ARGUMENT. */
LH_API lh_status lh_fetch(lh_home* home, const char* memory, const lh_place* places,
                          size_t places_count, const lh_rows* rows);
/* The token ids of a place, [end - begin]. */
LH_API lh_status lh_tokens(lh_home* home, const char* memory, const lh_place* place,
                           int32_t* tokens);

/* The document that shares the longest prefix with `tokens`, and its length: 0 where none does. Only
 * committed tokens count. */
LH_API lh_status lh_prefix(lh_home* home, const char* memory, const int32_t* tokens, size_t count,
                           uint32_t* document, uint64_t* length);

/* ------------------------------------------------------------------------------- managing */

/* Forgets a document, or with NULL the memory. */
LH_API lh_status lh_forget(lh_home* home, const char* memory, const char* document);

typedef struct lh_stats {
  size_t size;
  uint64_t documents, tokens, disk_bytes;
  uint32_t sink_tokens;    /* the first tokens of each document, which a recalled prompt begins with */
  uint32_t window_tokens;  /* that a token attends to while the text is read, beside the sinks */
} lh_stats;

/* Of a memory. Errors: LH_NOT_FOUND. */
LH_API lh_status lh_stat(lh_home* home, const char* memory, lh_stats* stats);

#ifdef __cplusplus
}
#endif
#endif
