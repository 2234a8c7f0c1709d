#!/usr/bin/env python3
"""longhold.transformers on tiny random models of Llama, Qwen2, Qwen3 and Gemma 3 (sliding windows), in float32.

What is compared with what:
- Recall: the logits of a prompt with all of a read text recalled, and those of one stock pass over text and prompt. Storage
  rounds keys and values (of size 1 to 4) to 16 bits, a relative 5e-4; logits of size 1 then differ by about 1e-3. The limit is
  1e-2, and the logits without the memory must differ by ten times that.
- Greedy answers: those of generate() with recalled keys before its own, and of generate() with the same keys in a DynamicCache.
- Reading: stored keys and values, and those of the same passes through a stock model whose DynamicCache holds sinks and window;
  and those of an interrupted reading. Its window comes back from the memory, un-rotated there and not here, so some elements are
  rounded to the next number of 16 bits: 5e-3 of the largest element.

Weights are drawn so large that attention is far from uniform. Without torch and transformers the tests are skipped (code 77).

  LONGHOLD_LIBRARY=build/release/liblonghold.so PYTHONPATH=python/src python/tests/transformers_test.py [CLASS...]
"""
import gc
import inspect
import sys
import tempfile
import threading
import unittest
import unittest.mock

try:
    import tokenizers
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import longhold
import longhold.transformers
from longhold.rotation import Rotation
from longhold.transformers import attention, prompts, runs, vocabulary

torch.set_num_threads(1)
LIMIT = 1e-2
# Newer versions have another name for it.
CACHE = "cache" if "cache" in inspect.signature(transformers.LlamaForCausalLM.forward).parameters else "past_key_values"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "".join(
    f"Line {i} speaks of the {a} and the {b}.\n"
    for i, (a, b) in enumerate(
        zip("river stone copper window garden letter".split() * 60, "engine winter market silver".split() * 90, strict=True)
    )
)
NEEDLE = "The lighthouse keeper buried his treasure beneath the crooked elm.\n"


def byte_tokenizer():
    """A byte-level tokenizer with some merges, like GPT-2's."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT, NEEDLE], trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>",
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    fast.chat_template = CHATML
    return fast


TOKENIZER = byte_tokenizer()
SHAPE = dict(
    vocab_size=512, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, max_position_embeddings=4096, initializer_range=0.2, eos_token_id=0, pad_token_id=0, bos_token_id=None,
)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


def make(kind, **changes):
    config = {**SHAPE, **changes}
    if "rope_parameters" in config and transformers.__version__.startswith("4."):
        scaling = dict(config.pop("rope_parameters"))
        config.update(rope_theta=scaling.pop("rope_theta"), rope_scaling=scaling)
    if kind == "gemma3":
        made = transformers.Gemma3TextConfig(
            **{"sliding_window": 300, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
               "query_pre_attn_scalar": 16, **config}
        )
        model = transformers.Gemma3ForCausalLM
    else:
        name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "glm": "Glm", "gemma2": "Gemma2"}[kind]
        made = getattr(transformers, name + "Config")(**config)
        model = getattr(transformers, name + "ForCausalLM")
    torch.manual_seed(7)
    return model(made).eval()


KINDS = ("llama", "qwen2", "qwen3", "gemma3")


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False, return_tensors="pt").input_ids


def whole(memory, tokens, document=1):
    """A plan of all of a document."""
    span = longhold.Span(document, "text", 0, tokens, 1, 1, 0, 1, 1.0, "")
    return longhold.Plan((span,), longhold.Evidence.STRONG, None)


class WithHome(unittest.TestCase):
    def setUp(self):
        self.folder = None

    def fresh(self):
        """A home of its own for what follows."""
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def attach(self, model, **options):
        if self.folder is None:
            self.fresh()
        options = {"codec": "exact", **options}
        memory = longhold.attach(model, options.pop("name", "box"), tokenizer=TOKENIZER, home=self.folder.name, **options)
        self.addCleanup(memory.detach)
        return memory


class Recalling(WithHome):
    def check_exact(self, model):
        text, prompt = TEXT[:500], ids_of("The keeper speaks of the")
        tokens = ids_of(text)
        self.assertLess(tokens.shape[1], 250)
        with torch.no_grad():
            stock = model(torch.cat((tokens, prompt), 1)).logits[0, tokens.shape[1] :]
            without = model(prompt).logits[0]
        with self.attach(model) as memory, torch.no_grad():
            memory.read(text, "text")
            with memory.recalling(whole(memory, tokens.shape[1])):
                got = model(prompt).logits[0]
                self.assertEqual(memory.last.tokens, tokens.shape[1])
        self.assertLess(float((got - stock).abs().max()), LIMIT)
        self.assertGreater(float((without - stock).abs().max()), 10 * LIMIT)

    def test_all_of_a_short_text_recalled_gives_the_logits_of_full_attention(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.fresh()
                self.check_exact(make(kind))

    def test_scaled_rotary_embeddings_are_described_exactly(self):
        for scaling in (LLAMA3, YARN, {"rope_type": "linear", "factor": 4.0}):
            with self.subTest(scaling["rope_type"]):
                self.fresh()
                self.check_exact(make("llama", rope_parameters={"rope_theta": 10000.0, **scaling}))
        with self.subTest("pairs (2i, 2i+1), half of the channels"):
            self.fresh()
            self.check_exact(make("glm"))

    def test_a_rotation_survives_how_longhold_writes_it(self):
        for changes in ({}, LLAMA3, YARN):
            rope = {"rope_parameters": {"rope_theta": 10000.0, **changes}} if changes else {}
            model = make("llama", **rope)
            with self.subTest(changes), self.attach(model, name=f"rotations-{len(changes)}") as memory:
                described, model = memory._described, memory.home.description
            for rotation, rope in zip(described.rotations, model.rope, strict=True):
                again = Rotation.of(rope)
                self.assertTrue(torch.equal(again.frequencies, rotation.frequencies))
                self.assertEqual((again.magnitude, again.halves), (rotation.magnitude, rotation.halves))

    def test_greedy_answers_are_those_of_a_cache_that_holds_the_recalled_prompt(self):
        # The last one's sliding layers see a part of what is recalled.
        for kind, changes in (*((kind, {}) for kind in KINDS), ("gemma3", {"sliding_window": 100})):
            with self.subTest(kind, **changes):
                self.fresh()
                model = make(kind, **changes)
                text, prompt = TEXT[:2500], ids_of("The keeper speaks of the")
                places = [(0, 64), (400, 440), (300, 390)]
                spans = [longhold.Span(1, "text", b, e, 1, 1, 0, 1, s, "") for (b, e), s in zip(places[1:], (0.5, 1.0), strict=True)]
                plan = longhold.Plan(tuple(reversed(spans)), longhold.Evidence.STRONG, None)
                with self.attach(model, gate=0) as memory:
                    memory.read(text, "text")
                    total = sum(e - b for b, e in places)
                    with memory.recalling(plan):
                        got = model.generate(prompt, max_new_tokens=24, do_sample=False)[0, prompt.shape[1] :].tolist()
                        without_cache = model.generate(prompt, max_new_tokens=24, do_sample=False, use_cache=False)
                        fixed = model.generate(prompt, max_new_tokens=24, do_sample=False, cache_implementation="static")
                    at, where = 0, []
                    for begin, end in places:
                        where.append(longhold.Place(1, begin, end, at))
                        at += end - begin
                    keys, values = memory._fetch(where, rotated=True)
                    stored = ids_of(text)[0]
                cache = transformers.DynamicCache(config=model.config)
                for layer, (k, v) in enumerate(zip(keys, values, strict=True)):
                    cache.update(k, v, layer)
                before = torch.cat([stored[b:e] for b, e in places])[None]
                full = torch.cat((before, prompt), 1)
                stock = model.generate(full, **{CACHE: cache}, max_new_tokens=24, do_sample=False)[0, full.shape[1] :].tolist()
                self.assertEqual(total, before.shape[1])
                self.assertEqual(got, stock)
                self.assertEqual(without_cache[0, prompt.shape[1] :].tolist(), stock)
                self.assertEqual(fixed[0, prompt.shape[1] :].tolist(), stock)

    def test_a_prompt_recalls_the_line_that_its_last_user_message_is_about_and_cites_it(self):
        model = make("llama")
        memory = self.attach(model, spans_max=4)
        lines = TEXT.splitlines(keepends=True)
        memory.read("".join(lines[:200]) + NEEDLE + "".join(lines[200:]), "letter")
        messages = [
            {"role": "user", "content": "Tell me of the silver market."},
            {"role": "assistant", "content": "It was in winter."},
            {"role": "user", "content": "Where did the keeper bury the treasure?"},
        ]
        prompt = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        self.assertIsNone(memory.last)
        model.generate(**prompt, max_new_tokens=8, do_sample=False)
        last = memory.last
        self.assertEqual(last.question, "Where did the keeper bury the treasure?")
        self.assertIn("crooked elm", last.spans[0].text)
        self.assertEqual(last.evidence, longhold.Evidence.STRONG)
        cited = memory.citations()
        self.assertEqual(len(cited), len(last.spans))
        self.assertAlmostEqual(sum(c.share for c in cited), 1.0, places=5)
        self.assertEqual([c.share for c in cited], sorted((c.share for c in cited), reverse=True))

    def test_recall_heads_see_the_question_and_give_coverage(self):
        model = make("qwen3")
        memory = self.attach(model, recall_heads=[(1, 0), (2, 1)], spans_max=4)
        memory.read(TEXT[:4000] + NEEDLE + TEXT[4000:], "letter")
        model.generate(ids_of("Where did the keeper bury the treasure?"), max_new_tokens=4, do_sample=False)
        self.assertGreater(memory.last.coverage, 0)
        self.assertLessEqual(memory.last.coverage, 1)
        self.assertGreater(memory.plan("Where is the treasure?").coverage, 0)

    def test_a_weak_question_recalls_nothing_where_evidence_is_asked_for(self):
        model = make("llama")
        memory = self.attach(model, evidence_min=longhold.Evidence.WEAK)
        memory.read(TEXT, "letter")
        prompt = ids_of("Quarks decay?")
        model(prompt)
        self.assertEqual((memory.last.evidence, memory.last.tokens), (longhold.Evidence.NONE, 0))

    def test_interleaved_answers_keep_what_each_recalled(self):
        model = make("llama")
        memory = self.attach(model, spans_max=2)
        memory.read(TEXT[:4000] + NEEDLE + TEXT[4000:], "letter")
        prompts_of_both = [ids_of("Where is the treasure of the keeper?"), ids_of("Line 70 speaks of the letter")]
        alone = [model.generate(p, max_new_tokens=6, do_sample=False)[0, p.shape[1] :].tolist() for p in prompts_of_both]
        outputs = [model(p, use_cache=True) for p in prompts_of_both]
        got = [[], []]
        for _ in range(6):
            for i in range(2):
                token = outputs[i].logits[:, -1].argmax(-1, keepdim=True)
                got[i].append(int(token))
                outputs[i] = model(token, **{CACHE: getattr(outputs[i], CACHE)}, use_cache=True)
        self.assertEqual(got, alone)
        failed = []

        def work(i):
            for _ in range(3):
                p = prompts_of_both[i]
                if model.generate(p, max_new_tokens=6, do_sample=False)[0, p.shape[1] :].tolist() != alone[i]:
                    failed.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        seen = []
        reader = threading.Thread(target=lambda: seen.append(memory.last.question))
        reader.start()
        reader.join()
        self.assertIn(seen[0], [TOKENIZER.decode(p[0]) for p in prompts_of_both])

    def test_recalled_keys_go_with_the_cache_that_saw_them(self):
        model = make("llama")
        memory = self.attach(model)
        memory.read(TEXT, "letter")
        output = model(ids_of("Where is the river?"), use_cache=True)
        self.assertEqual(len(memory._runs), 1)
        del output
        self.assertEqual(len(memory._runs), 0)
        model.generate(ids_of("Where is the river?"), max_new_tokens=4)
        self.assertEqual(len(memory._runs), 0)
        gc.collect()
        self.assertEqual([o for o in gc.get_objects() if type(o) is runs.RecallRun], [])
        self.assertGreater(memory.last.tokens, 0)


class Attending(unittest.TestCase):
    def test_both_ways_to_attend_are_softmax_over_recalled_and_own_keys(self):
        torch.manual_seed(3)
        q_heads, kv_heads, dim, before = 6, 2, 16, 37
        keys, values = ([torch.randn(1, kv_heads, n, dim) for n in (before, 9)] for _ in range(2))
        bias = torch.randn(before)
        for tokens in (1, 3, 9):
            query = torch.randn(1, q_heads, tokens, dim)
            seen = torch.arange(9)[None, :] <= torch.arange(9 - tokens, 9)[:, None]
            logits = query @ torch.cat(keys, 2).repeat_interleave(3, 1).transpose(2, 3) * 0.3
            logits += torch.cat((bias.expand(tokens, -1), torch.zeros(tokens, 9).masked_fill(~seen, float("-inf"))), -1)
            weights = logits.softmax(-1)
            wanted = (weights @ torch.cat(values, 2).repeat_interleave(3, 1)).transpose(1, 2)
            mask = None if tokens == 1 else seen[None, None]
            joined_mask = attention.JoinedMasks().of(mask, bias, tokens, 9, query)
            joined = attention.attend_joined(query, keys, values, joined_mask, 0.3)
            apart, mass = attention.attend_apart(query, keys, values, bias, mask, 0.3)
            torch.testing.assert_close(joined, wanted, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(apart, wanted, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(mass.sum((0, 1)), weights[0, ..., :before].sum((0, 1)), atol=1e-5, rtol=1e-5)

    def test_the_gate_lowers_what_a_worse_span_gets(self):
        memory = longhold.transformers.Memory.__new__(longhold.transformers.Memory)
        memory.gate, memory.name = 2.0, "box"
        memory.home = unittest.mock.Mock()
        memory.home.stat.return_value.sink_tokens = 64
        spans = [longhold.Span(1, "t", 50, 80, 1, 1, 0, 1, 1.0, ""), longhold.Span(2, "t", 10, 20, 1, 1, 0, 1, 0.5, "", 2, 5, "d")]
        laid = memory._lay_out(longhold.Plan(tuple(spans), longhold.Evidence.STRONG, None))
        self.assertEqual(
            laid.places,
            [longhold.Place(1, 0, 64, -93), longhold.Place(2, 2, 5, -29), longhold.Place(2, 10, 20, -26), longhold.Place(1, 64, 80, -16)],
        )
        self.assertEqual(laid.columns, [(77, 93), (64, 77)])
        self.assertEqual([round(laid.bias[i], 3) for i in (0, 64, 76, 77)], [0, -1.386, -1.386, 0])

    def test_spans_within_the_sinks_are_cited_without_the_tokens_that_heads_rest_on(self):
        memory = longhold.transformers.Memory.__new__(longhold.transformers.Memory)
        memory.gate, memory.name = 2.0, "box"
        memory.home = unittest.mock.Mock()
        memory.home.stat.return_value.sink_tokens = 64
        spans = [
            longhold.Span(1, "t", begin, end, 1, 1, 0, 1, score, "")
            for begin, end, score in ((0, 20, 1.0), (20, 64, 0.5), (90, 100, 0.25))
        ]
        laid = memory._lay_out(longhold.Plan(tuple(spans), longhold.Evidence.STRONG, None))
        self.assertEqual(laid.places, [longhold.Place(1, 0, 64, -74), longhold.Place(1, 90, 100, -10)])
        self.assertEqual(laid.columns, [(8, 20), (20, 64), (64, 74)])
        self.assertEqual(laid.bias[:64], [0.0] * 64)

    def test_a_text_that_is_all_sinks_is_cited(self):
        model = make("llama")
        with tempfile.TemporaryDirectory() as folder, longhold.attach(model, "box", TOKENIZER, folder, codec="exact") as memory:
            memory.read(NEEDLE, "letter")
            self.assertLess(memory.stat().tokens, memory.stat().sink_tokens)
            model.generate(ids_of("Where did the keeper bury the treasure?"), max_new_tokens=4, do_sample=False)
            self.assertEqual([c.span.document_name for c in memory.citations()], ["letter"])


class Reading(WithHome):
    def test_stored_rows_are_those_of_stock_passes_over_sinks_and_window(self):
        for kind in ("llama", "qwen2", "qwen3"):
            with self.subTest(kind):
                self.fresh()
                model = make(kind)
                with self.attach(model) as memory:
                    memory.read(TEXT, "text")
                    tokens = ids_of(TEXT)[0]
                    count = len(tokens)
                    self.assertGreater(count, 1536)
                    got = memory._fetch([longhold.Place(1, 0, count)], rotated=False)
                    rotations = memory._described.rotations
                keys = [torch.zeros(1, 2, 0, 16)] * 3
                values = list(keys)
                for n in range(0, count, 512):
                    part = tokens[n : n + 512]
                    held = [*range(min(n, 64)), *range(max(min(n, 64), n - 256), n)]
                    cache = transformers.DynamicCache(config=model.config)
                    here = torch.arange(len(held))
                    for layer in range(3):
                        cache.update(rotations[layer].turned(keys[layer][:, :, held], here), values[layer][:, :, held], layer)
                    at = torch.arange(len(held), len(held) + len(part))
                    with torch.no_grad():
                        model(part[None], **{CACHE: cache}, position_ids=at[None])
                    for layer in range(3):
                        new = cache.layers[layer].keys[:, :, len(held) :]
                        keys[layer] = torch.cat((keys[layer], rotations[layer].turned(new, at, back=True)), 2)
                        values[layer] = torch.cat((values[layer], cache.layers[layer].values[:, :, len(held) :]), 2)
                for layer in range(3):
                    for mine, theirs in ((got[0][layer], keys[layer]), (got[1][layer], values[layer])):
                        self.assertLess(float((mine - theirs).abs().max() / theirs.abs().max()), 5e-3)

    def test_sliding_layers_read_as_in_a_stock_run_of_all_of_the_text(self):
        model = make("gemma3", layer_types=["sliding_attention"] * 3)
        tokens = ids_of(TEXT)
        with self.attach(model) as memory:
            memory.read(TEXT, "text")
            got = memory._fetch([longhold.Place(1, 0, tokens.shape[1])], rotated=True)
        cache = transformers.DynamicCache()  # without the model's config it keeps all keys
        with torch.no_grad():
            model(tokens, **{CACHE: cache})
        for layer in range(3):
            for mine, theirs in ((got[0][layer], cache.layers[layer].keys), (got[1][layer], cache.layers[layer].values)):
                self.assertLess(float((mine - theirs).abs().max() / theirs.abs().max()), 5e-3)

    def test_an_interrupted_reading_continues_and_ends_with_nearly_the_same_rows(self):
        model = make("gemma3")
        tokens = ids_of(TEXT).shape[1]

        def stop(done, total):
            if done >= 1024:
                raise KeyboardInterrupt

        with self.attach(model, name="one") as memory:
            memory.read(TEXT, "text")
            wanted = memory._fetch([longhold.Place(1, 0, tokens)], rotated=False)
        with self.attach(model, name="two") as memory:
            with self.assertRaises(KeyboardInterrupt):
                memory.read(TEXT, "text", progress=stop)
            again = memory.read(TEXT, "text")
            self.assertEqual((again.first, again.tokens), (1024, tokens))
            self.assertEqual(memory.read(TEXT, "copy").first, tokens)
            got = memory._fetch([longhold.Place(1, 0, tokens)], rotated=False)
        for mine, theirs in zip(got[0] + got[1], wanted[0] + wanted[1], strict=True):
            self.assertLess(float((mine - theirs).abs().max() / theirs.abs().max()), 5e-3)


class Staying(WithHome):
    def test_a_model_is_itself_before_beside_and_after_a_memory(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.fresh()
                model = make(kind)
                prompt = ids_of("The river and the copper")
                with torch.no_grad():
                    before = model(prompt).logits
                    implementation = model.config._attn_implementation
                    with self.attach(model) as memory:
                        empty = model(prompt).logits
                        self.assertIsNone(memory.last)
                        memory.read(TEXT, "text")
                        with memory.recalling(None):
                            paused = model(prompt).logits
                    after = model(prompt).logits
                self.assertTrue(torch.equal(before, after))
                self.assertTrue(torch.equal(before, empty))
                self.assertTrue(torch.equal(before, paused))
                self.assertEqual(model.config._attn_implementation, implementation)

    def test_what_is_not_served_is_refused_by_name(self):
        for kind, changes, words in (
            ("gemma2", {}, "layer 0 caps its attention logits"),
            ("llama", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}}, "'dynamic' changes"),
        ):
            model = make(kind, **changes)
            implementation = model.config._attn_implementation
            with self.assertRaisesRegex(longhold.Unimplemented, words):
                self.attach(model)
            self.assertEqual(model.config._attn_implementation, implementation)
            model(ids_of("It still runs."))
        torch.manual_seed(7)
        gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=512, n_embd=48, n_layer=2, n_head=4))
        with self.assertRaisesRegex(longhold.Unimplemented, "layer 0"):
            self.attach(gpt2)
        model = make("llama")
        memory = self.attach(model)
        memory.read(TEXT, "text")
        prompt = ids_of("The river")
        with self.assertRaisesRegex(longhold.Unimplemented, "batch of 2"):
            model(prompt.repeat(2, 1))
        with self.assertRaisesRegex(longhold.Unimplemented, "inputs_embeds"):
            model(inputs_embeds=model.get_input_embeddings()(prompt))
        with self.assertRaisesRegex(longhold.FailedPrecondition, "has the memory box already"):
            self.attach(model)

    def test_another_models_memory_is_refused_by_name(self):
        with self.attach(make("llama")) as memory:
            memory.read(TEXT[:500], "text")
        with self.assertRaises(longhold.FailedPrecondition) as refused:
            self.attach(make("qwen3"))
        self.assertIn("LlamaForCausalLM", str(refused.exception))
        self.assertIn("Qwen3ForCausalLM", str(refused.exception))

    def test_a_fingerprint_changes_with_weights_vocabulary_and_precision_only(self):
        self.fresh()

        def fingerprint(model, tokenizer=TOKENIZER):
            with longhold.attach(model, "box", tokenizer=tokenizer, home=self.folder.name) as memory:
                return memory._described.model.fingerprint

        model = make("llama")
        first = fingerprint(model)
        self.assertRegex(first, "^hf-[0-9a-f]{40}$")
        self.assertEqual(first, fingerprint(make("llama")))
        self.assertNotEqual(first, fingerprint(make("llama").to(torch.bfloat16)))
        other = byte_tokenizer()
        other.add_tokens(["newword"])
        self.assertNotEqual(first, fingerprint(model, other))
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight += 0.01
        self.assertNotEqual(first, fingerprint(model))


class Words(unittest.TestCase):
    HARD = "Naïve café — “quoted” 漢字かな 😀🏳️‍🌈 a\u0301\tTab  two  spaces\r\n\n" + " " * 40 + "end\x00."

    def check(self, tokenizer, text, size=0):
        pieces = vocabulary.pieces_of(tokenizer, size)
        made = vocabulary.tokenise(tokenizer, pieces, text)
        self.assertEqual(int(made.token_bytes.sum()), len(text.encode()))
        self.assertEqual(len(made.tokens), len(made.token_bytes))
        return pieces, made

    def test_pieces_of_byte_level_tokens_are_the_texts_bytes(self):
        pieces, made = self.check(TOKENIZER, self.HARD, 512)
        self.assertEqual(b"".join(pieces[t] for t in made.tokens), self.HARD.encode())
        self.assertEqual([len(pieces), pieces[0], pieces[511]], [512, b"", b""])

    def test_pieces_of_sentencepiece_like_tokens(self):
        vocab = [("<s>", 0.0), ("<unk>", 0.0)] + [(f"<0x{b:02X}>", -20.0) for b in range(256)]
        vocab += [("\u2581", -3.0), ("\u2581end", -2.0)] + [(c, -4.0) for c in "abcdefghijklmnopqrstuvwxyzN.\n\t"]
        made = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, unk_id=1, byte_fallback=True))
        made.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
        made.decoder = tokenizers.decoders.Sequence(
            [tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
        )
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")
        pieces, tokens = self.check(fast, self.HARD)
        self.assertEqual(b"".join(pieces[t] for t in tokens.tokens), self.HARD.encode())
        self.assertEqual(pieces[:3], [b"", b"", b"\x00"])

    def test_a_tokenizer_that_normalises_still_adds_up_to_the_text(self):
        made = tokenizers.Tokenizer.from_str(TOKENIZER.backend_tokenizer.to_str())
        made.normalizer = tokenizers.normalizers.NFC()
        made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
        _, tokens = self.check(fast, self.HARD)
        self.assertEqual(int((tokens.token_bytes > 6).sum()), 0)

    def test_a_long_text_is_tokenised_in_parts_that_end_at_lines(self):
        text = TEXT * 8
        self.assertGreater(len(text), 3 * vocabulary.PART_BYTES / 2)
        pieces, made = self.check(TOKENIZER, text)
        self.assertEqual(b"".join(pieces[t] for t in made.tokens), text.encode())
        self.check(TOKENIZER, "漢" * 30000)

    def test_the_question_is_the_last_user_message(self):
        turn = prompts.turn_of(TOKENIZER)
        self.assertEqual((turn.opener, turn.closer), ("<|im_start|>user\n", "<|im_end|>\n"))
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Earlier?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "What speaks of the river?"},
        ]
        ids = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        found = prompts.asked(TOKENIZER, turn, ids)
        self.assertEqual(found.text, "What speaks of the river?")
        self.assertEqual(TOKENIZER.decode(ids[found.first_token : found.end_token]).strip(), found.text)
        with unittest.mock.patch.object(prompts, "_token_at", side_effect=AssertionError):
            self.assertEqual(prompts.asked(TOKENIZER, turn, ids, with_tokens=False), prompts.Asked(found.text, 0, len(ids)))
        plain = ids_of("No template here.")[0].tolist()
        self.assertEqual(prompts.asked(TOKENIZER, turn, plain), prompts.Asked("No template here.", 0, len(plain)))


if __name__ == "__main__":
    unittest.main()
