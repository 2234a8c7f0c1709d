/* The C library as a C program sees it: built with the installed header, by a C compiler.
 *
 * A tiny described model puts a text with keys and values that are functions of token, layer and
 * channel, so that every fetched element can be computed again. capi_test.py builds and runs it.
 * Usage: capi_test HOME [GGUF], or capi_test HOME put [check]; HOME may be "-" there: no directory
 * is named. The exit code is 0, or the line of the first failure is printed. */
#include <longhold.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                   \
  do {                                                                                     \
    if (!(condition)) {                                                                    \
      fprintf(stderr, "%s:%d: %s\n    last message: %s\n", __FILE__, __LINE__, #condition, \
              lh_message());                                                               \
      exit(1);                                                                             \
    }                                                                                      \
  } while (0)

enum { kLayers = 2, kKvHeads = 1, kHeadDim = 8, kVocab = 256, kTokensMax = 20000 };

static char bytes[kVocab];
static const char* pieces[kVocab];
static uint32_t piece_bytes[kVocab];

static float Element(size_t token, int layer, int channel, int value) {
  return (float)((token * 7 + (size_t)layer * 3 + (size_t)channel * 5 + (size_t)value) % 64) /
             32.0f -
         1.0f;
}

static lh_model Model(const lh_rope* rope, const char* fingerprint) {
  for (int i = 0; i < kVocab; ++i) {
    bytes[i] = (char)i;
    pieces[i] = &bytes[i];
    piece_bytes[i] = 1;
  }
  lh_model model = {0};
  model.size = sizeof(model);
  model.name = "tiny";
  model.fingerprint = fingerprint;
  model.layer_count = kLayers;
  model.q_heads = 2;
  model.kv_heads = kKvHeads;
  model.head_dim = kHeadDim;
  model.context_length = 4096;
  model.rope = rope;
  model.rope_count = 1;
  model.pieces = pieces;
  model.piece_bytes = piece_bytes;
  model.vocab_size = kVocab;
  model.bos = -1;
  return model;
}

static void TestErrors(const char* directory) {
  lh_home* home = NULL;
  lh_rope rope = {.size = sizeof(rope), .rotary_dims = kHeadDim, .halves = 1, .freq_base = 10000};
  lh_model model = Model(&rope, "tiny-1");
  lh_options options = {.size = sizeof(options), .home = directory};
  CHECK(lh_open(NULL, &model, &home) == LH_INVALID_ARGUMENT);
  CHECK(strlen(lh_message()) > 0);
  CHECK(lh_open(&options, NULL, &home) == LH_INVALID_ARGUMENT);
  CHECK(lh_open(&options, &model, NULL) == LH_INVALID_ARGUMENT);
  lh_options unset = options;
  unset.size = 0;
  CHECK(lh_open(&unset, &model, &home) == LH_INVALID_ARGUMENT);
  lh_options codec = options;
  codec.codec = "zip";
  CHECK(lh_open(&codec, &model, &home) == LH_INVALID_ARGUMENT);
  CHECK(strstr(lh_message(), "zip") != NULL);
  lh_options embedder = options;
  embedder.embedder = "/nowhere/model.gguf";
  CHECK(lh_open(&embedder, &model, &home) == LH_NOT_FOUND);
  lh_model odd = model;
  odd.head_dim = 7;
  CHECK(lh_open(&options, &odd, &home) == LH_INVALID_ARGUMENT);
  CHECK(strstr(lh_message(), "7") != NULL);
  /* A caller of a newer header whose new member is not 0. */
  struct {
    lh_options old;
    uint64_t member;
  } newer = {options, 1};
  newer.old.size = sizeof(newer);
  CHECK(lh_open(&newer.old, &model, &home) == LH_UNIMPLEMENTED);
  newer.member = 0;
  CHECK(lh_open(&newer.old, &model, &home) == LH_OK);
  CHECK(lh_plan_make(home, "m", NULL, NULL) == LH_INVALID_ARGUMENT);
  CHECK(lh_put_finish(NULL) == LH_INVALID_ARGUMENT);
  lh_stats stats = {.size = sizeof(stats)};
  CHECK(lh_stat(home, "nothing", &stats) == LH_NOT_FOUND);
  CHECK(lh_stat(home, "../evil", &stats) == LH_INVALID_ARGUMENT);
  CHECK(lh_ingest(home, "m", "a", "text", 4) == LH_FAILED_PRECONDITION);
  lh_close(home);
  lh_close(NULL);
  lh_plan_free(NULL);
}

static size_t MakeText(char* text) {
  static const char kNeedle[] = "\nThe secret number of Methuselah is 7350194.\n";
  size_t n = 0;
  for (int line = 0; n < kTokensMax - 200; ++line) {
    if (line == 150) {
      memcpy(text + n, kNeedle, sizeof(kNeedle) - 1);
      n += sizeof(kNeedle) - 1;
    }
    n += (size_t)sprintf(text + n, "Line %d speaks of camel number %d and a well.\n", line,
                         line * 37 % 91);
  }
  return n;
}

/* The text and its tokens, which are its bytes. */
static lh_document Tale(void) {
  static char text[kTokensMax];
  static int32_t tokens[kTokensMax];
  const size_t n = MakeText(text);
  for (size_t t = 0; t < n; ++t) tokens[t] = (unsigned char)text[t];
  return (lh_document){.size = sizeof(lh_document),
                       .name = "tale",
                       .text = text,
                       .text_bytes = n,
                       .tokens = tokens,
                       .tokens_count = n};
}

static void TestPutAndRecall(const char* directory) {
  static float keys[kLayers][kTokensMax * kHeadDim], values[kLayers][kTokensMax * kHeadDim];
  const lh_document document = Tale();
  const size_t n = document.tokens_count;
  for (size_t t = 0; t < n; ++t) {
    for (int l = 0; l < kLayers; ++l) {
      for (int c = 0; c < kHeadDim; ++c) {
        keys[l][t * kHeadDim + c] = Element(t, l, c, 0);
        values[l][t * kHeadDim + c] = Element(t, l, c, 1);
      }
    }
  }
  lh_rope rope = {.size = sizeof(rope), .rotary_dims = kHeadDim, .halves = 1, .freq_base = 10000};
  const lh_model model = Model(&rope, "tiny-1");
  const lh_options options = {.size = sizeof(options), .home = directory, .codec = "exact"};
  lh_home* home = NULL;
  CHECK(lh_open(&options, &model, &home) == LH_OK);
  /* Twice: the first is interrupted. */
  for (int run = 0; run < 2; ++run) {
    lh_writer* writer = NULL;
    CHECK(lh_put_begin(home, "m", &document, &writer) == LH_OK);
    CHECK(lh_put_position(writer) == (run == 0 ? 0 : 5056u));
    CHECK(lh_put_document(writer) == 1);
    while (lh_put_position(writer) < (run == 0 ? 5100 : n)) {
      const size_t at = lh_put_position(writer);
      const size_t end = run == 0 ? 5100 : n;
      void* k[kLayers] = {keys[0] + at * kHeadDim, keys[1] + at * kHeadDim};
      void* v[kLayers] = {values[0] + at * kHeadDim, values[1] + at * kHeadDim};
      const lh_rows rows = {.size = sizeof(rows),
                            .keys = k,
                            .values = v,
                            .tokens = end - at < 333 ? end - at : 333,
                            .float32 = 1};
      CHECK(lh_put_rows(writer, &rows) == LH_OK);
    }
    CHECK(lh_put_finish(writer) == LH_OK);
  }
  lh_stats stats = {.size = sizeof(stats)};
  CHECK(lh_stat(home, "m", &stats) == LH_OK);
  CHECK(stats.documents == 1);
  CHECK(stats.tokens == n);
  CHECK(stats.sink_tokens == 64);

  const lh_question question = {.size = sizeof(question),
                                .text = "What is the secret number of Methuselah?"};
  lh_plan* plan = NULL;
  CHECK(lh_plan_make(home, "m", &question, &plan) == LH_OK);
  CHECK(lh_plan_count(plan) > 0);
  lh_span span = {.size = sizeof(span)};
  lh_plan_span(plan, 0, &span);
  CHECK(strstr(span.text, "7350194") != NULL);
  CHECK(strcmp(span.document_name, "tale") == 0);
  CHECK(span.score == 1 && span.line_begin >= 150 && span.line_end <= 153);
  CHECK(lh_plan_evidence(plan) == LH_EVIDENCE_STRONG);
  CHECK(lh_plan_coverage(plan) == -1);

  /* The sinks and the span, at negative positions. */
  const size_t sinks = 64, length = span.end - span.begin, all = sinks + length;
  float* got[2][kLayers];
  for (int i = 0; i < 2 * kLayers; ++i)
    got[i / kLayers][i % kLayers] = malloc(all * kHeadDim * sizeof(float));
  const int64_t first = -(int64_t)all;
  const lh_place places[2] = {{.size = sizeof(lh_place),
                               .document = span.document,
                               .begin = 0,
                               .end = sinks,
                               .position = first},
                              {.size = sizeof(lh_place),
                               .document = span.document,
                               .begin = span.begin,
                               .end = span.end,
                               .position = first + (int64_t)sinks}};
  const lh_rows into = {.size = sizeof(into),
                        .keys = (void* const*)got[0],
                        .values = (void* const*)got[1],
                        .tokens = all,
                        .float32 = 1,
                        .rotated = 1};
  CHECK(lh_fetch(home, "m", places, 2, &into) == LH_OK);
  for (size_t i = 0; i < all; ++i) {
    const size_t t = i < sinks ? i : span.begin + i - sinks;
    for (int l = 0; l < kLayers; ++l) {
      for (int c = 0; c < kHeadDim; ++c) {
        const int pair = c % (kHeadDim / 2);
        const double angle = (double)(first + (int64_t)i) * pow(10000, -2.0 * pair / kHeadDim);
        const double a = Element(t, l, pair, 0), b = Element(t, l, pair + kHeadDim / 2, 0);
        const double want =
            c < kHeadDim / 2 ? a * cos(angle) - b * sin(angle) : a * sin(angle) + b * cos(angle);
        /* All elements are exact in 16 bits; the rest is the rounding of float. */
        CHECK(fabs(got[0][l][i * kHeadDim + (size_t)c] - want) < 1e-5);
        CHECK(got[1][l][i * kHeadDim + (size_t)c] == Element(t, l, c, 1));
      }
    }
  }
  lh_rows wrong = into;
  wrong.tokens = all - 1;
  CHECK(lh_fetch(home, "m", places, 2, &wrong) == LH_INVALID_ARGUMENT);
  for (int i = 0; i < 2 * kLayers; ++i) free(got[i / kLayers][i % kLayers]);

  uint32_t which = 0;
  uint64_t prefix = 0;
  CHECK(lh_prefix(home, "m", document.tokens, 300, &which, &prefix) == LH_OK);
  CHECK(which == span.document && prefix == 300);
  int32_t read[64];
  CHECK(lh_tokens(home, "m", &places[0], read) == LH_OK);
  CHECK(memcmp(read, document.tokens, sizeof(read)) == 0);
  lh_plan_free(plan);
  lh_close(home);

  /* Another model is refused by name; a reader cannot write. */
  const lh_model other = Model(&rope, "tiny-2");
  CHECK(lh_open(&options, &other, &home) == LH_OK);
  CHECK(lh_plan_make(home, "m", &question, &plan) == LH_FAILED_PRECONDITION);
  CHECK(strstr(lh_message(), "tiny-2") != NULL || strstr(lh_message(), "tiny-1") != NULL);
  lh_close(home);
  lh_options reader = options;
  reader.read_only = 1;
  CHECK(lh_open(&reader, &model, &home) == LH_OK);
  lh_writer* writer = NULL;
  CHECK(lh_put_begin(home, "m", &document, &writer) == LH_FAILED_PRECONDITION);
  CHECK(lh_plan_make(home, "m", &question, &plan) == LH_OK);
  lh_plan_free(plan);
  lh_close(home);
  CHECK(lh_open(&options, &model, &home) == LH_OK);
  CHECK(lh_forget(home, "m", "tale") == LH_OK);
  CHECK(lh_forget(home, "m", NULL) == LH_OK);
  CHECK(lh_stat(home, "m", &stats) == LH_NOT_FOUND);
  lh_close(home);
}

/* Puts the tale in small pieces and says how far it is after each, until somebody kills the
 * process; with `check`, the last time: then all of it must be there. */
static void PutUntilKilled(const char* directory, int check) {
  const lh_document document = Tale();
  const size_t n = document.tokens_count;
  lh_rope rope = {.size = sizeof(rope), .rotary_dims = kHeadDim, .halves = 1, .freq_base = 10000};
  const lh_model model = Model(&rope, "tiny-1");
  const lh_options options = {.size = sizeof(options), .home = directory, .codec = "exact"};
  lh_home* home = NULL;
  CHECK(lh_open(&options, &model, &home) == LH_OK);
  lh_writer* writer = NULL;
  CHECK(lh_put_begin(home, "killed", &document, &writer) == LH_OK);
  printf("begin %u\n", (unsigned)lh_put_position(writer));
  fflush(stdout);
  for (size_t at = lh_put_position(writer); at < n; at = lh_put_position(writer)) {
    float keys[kLayers][100 * kHeadDim], values[kLayers][100 * kHeadDim];
    const size_t count = n - at < 100 ? n - at : 100;
    for (size_t t = 0; t < count; ++t) {
      for (int l = 0; l < kLayers; ++l) {
        for (int c = 0; c < kHeadDim; ++c) {
          keys[l][t * kHeadDim + (size_t)c] = Element(at + t, l, c, 0);
          values[l][t * kHeadDim + (size_t)c] = Element(at + t, l, c, 1);
        }
      }
    }
    void *k[kLayers] = {keys[0], keys[1]}, *v[kLayers] = {values[0], values[1]};
    const lh_rows rows = {
        .size = sizeof(rows), .keys = k, .values = v, .tokens = count, .float32 = 1};
    CHECK(lh_put_rows(writer, &rows) == LH_OK);
    printf("%u\n", (unsigned)lh_put_position(writer));
    fflush(stdout);
  }
  CHECK(lh_put_finish(writer) == LH_OK);
  if (check) {
    static float keys[kLayers][kTokensMax * kHeadDim], values[kLayers][kTokensMax * kHeadDim];
    void *k[kLayers] = {keys[0], keys[1]}, *v[kLayers] = {values[0], values[1]};
    const lh_place place = {.size = sizeof(place), .document = 1, .begin = 0, .end = n};
    const lh_rows rows = {.size = sizeof(rows), .keys = k, .values = v, .tokens = n, .float32 = 1};
    CHECK(lh_fetch(home, "killed", &place, 1, &rows) == LH_OK);
    for (size_t t = 0; t < n; ++t) {
      for (int l = 0; l < kLayers; ++l) {
        for (int c = 0; c < kHeadDim; ++c) {
          CHECK(keys[l][t * kHeadDim + (size_t)c] == Element(t, l, c, 0));
          CHECK(values[l][t * kHeadDim + (size_t)c] == Element(t, l, c, 1));
        }
      }
    }
  }
  lh_close(home);
}

/* A model that longhold runs itself. */
static void TestGguf(const char* directory, const char* gguf) {
  const lh_document tale = Tale();
  const lh_options options = {
      .size = sizeof(options), .home = directory, .gguf = gguf, .threads = 1};
  lh_home* home = NULL;
  CHECK(lh_open(&options, NULL, &home) == LH_OK);
  CHECK(lh_ingest(home, "read", tale.name, tale.text, tale.text_bytes) == LH_OK);
  CHECK(lh_ingest(home, "read", "broken", "\xff", 1) == LH_INVALID_ARGUMENT);
  const lh_question question = {.size = sizeof(question),
                                .text = "What is the secret number of Methuselah?"};
  lh_plan* plan = NULL;
  CHECK(lh_plan_make(home, "read", &question, &plan) == LH_OK);
  lh_span span = {.size = sizeof(span)};
  lh_plan_span(plan, 0, &span);
  CHECK(strstr(span.text, "7350194") != NULL);
  lh_plan_free(plan);
  lh_close(home);
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  if (argc > 2 && strcmp(argv[2], "put") == 0) {
    PutUntilKilled(strcmp(argv[1], "-") == 0 ? NULL : argv[1], argc > 3);
    return 0;
  }
  CHECK(lh_version() == LH_VERSION);
  TestErrors(argv[1]);
  TestPutAndRecall(argv[1]);
  if (argc > 2) TestGguf(argv[1], argv[2]);
  puts("ok");
  return 0;
}
