"""Requests of every kind, for the tests that write and read them."""

from __future__ import annotations

from hypothesis import strategies as st

from studio.specs import MAX_SEED, AdapterUse, RenderRequest

# Pieces that a reader of the text could take for its grammar.
TRAPS = (
    "\n", "\r\n", "\r", "\t", "\x00", "\u2028", "\x85", " ", ",", ":", '"', "\\", "<", ">", "(", ")", "é", "猫", "😀",
    "Negative prompt:", "\nNegative prompt: ", "Steps: 3, Sampler: x, CFG scale: 7", "\nSteps: 3, Sampler: x, Seed: 7",
    "<lora:", "<lora:mug:0.8>", "<lora:mug:0.8:0.3>", "<lora:a:te=1:unet=2>", "<hypernet:h:1>", "Studio: \"{}\"",
    "Version: Studio 1", "a cat", "BREAK", "cat#2",
)  # fmt: skip
TEXT = st.one_of(
    st.lists(st.sampled_from(TRAPS), max_size=8).map("".join),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=60),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
WEIGHT = st.floats(-4, 4)
NAME = TEXT.filter(bool)
ADAPTER = st.builds(
    AdapterUse,
    name=st.one_of(NAME, st.sampled_from(("mug", "toys/mug", "a: b, c", "Seed"))),
    hash=st.none() | st.text("0123456789abcdef", min_size=12, max_size=64),
    weight=WEIGHT,
    text_weight=st.none() | WEIGHT,
    words=st.lists(TEXT, max_size=3).map(tuple),
    trigger=st.none() | TEXT,
)
DIGEST = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
SIZE = st.none() | st.integers(16, 4096)
REQUEST = st.builds(
    RenderRequest,
    prompt=TEXT,
    negative=TEXT,
    base=NAME,
    adapters=st.lists(ADAPTER, max_size=3).map(tuple),
    method=st.sampled_from(("merge", "switch", "a: b", "")),
    options=st.dictionaries(TEXT, JSON, max_size=3),
    seed=st.none() | st.integers(0, MAX_SEED),
    count=st.integers(1, 64),
    steps=st.none() | st.integers(1, 200),
    guidance=st.none() | st.floats(0, 50),
    guidance_rescale=st.floats(0, 1),
    width=SIZE,
    height=SIZE,
    sampler=st.none() | st.sampled_from(("DPM++ 2M", "Euler a", "x, Steps: 9", "")),
    schedule=st.none() | st.sampled_from(("Karras", "SGM Uniform", '"')),
    clip_skip=st.integers(1, 12),
    vae=st.none() | TEXT,
    image=DIGEST,
    mask=DIGEST,
    strength=st.floats(0, 1, exclude_min=True),
)
EXTRA = st.dictionaries(st.sampled_from(("Model hash", "VAE hash", "Steps", "RNG")), TEXT, max_size=3)
