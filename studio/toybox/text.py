"""The text encoder of the Toybox and its first lesson: to name what every noun and the whole caption mean."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .recipe import Recipe, StageRecipe
from .speech import NOUNS, OBJECTS, Meaning, Reader, spoken
from .tokens import LENGTH, make_tokenizer
from .world import BACKGROUNDS, COLOURS, KINDS, NUMBERS, RELATIONS, scene


def make_text_encoder(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an encoder with random weights: tokens (B, 77) to states (B, 77, width)."""
    torch.manual_seed(recipe.seed)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_width,
        intermediate_size=4 * recipe.text_width,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.text_heads,
        max_position_embeddings=LENGTH,
        projection_dim=recipe.text_width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return CLIPTextModel(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return (B, 77) token ids, padded and cut as the pipeline does it."""
    tokens = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return torch.as_tensor(tokens.input_ids)


class Heads(nn.Module):
    """Linear readers of the text states; they exist only during the lesson."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.noun = nn.Linear(width, len(NOUNS))
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.scene_nouns = nn.Linear(width, OBJECTS * (len(NOUNS) + 1))
        self.scene_colours = nn.Linear(width, OBJECTS * (len(COLOURS) + 1))
        self.background = nn.Linear(width, len(BACKGROUNDS) + 1)
        self.relation = nn.Linear(width, len(RELATIONS) + 1)
        self.fingers = nn.Linear(width, len(NUMBERS) + 1)

    def loss(self, states: Tensor, meanings: list[Meaning]) -> tuple[Tensor, float]:
        """Sum of cross-entropies of (B, L, width) states; the share of nouns with class and colour both right."""
        at = [(row, *noun) for row, m in enumerate(meanings) for noun in m.nouns]
        rows, places, kinds, colours = (torch.tensor(v, device=states.device) for v in zip(*at, strict=True))
        words = states[rows, places].float()
        kind_logits, colour_logits = self.noun(words), self.colour(words)
        right = (kind_logits.argmax(-1) == kinds) & (colour_logits.argmax(-1) == colours)
        ends = states[torch.arange(len(meanings)), torch.tensor([m.end for m in meanings])].float()
        loss = (
            cross_entropy(kind_logits, kinds) + cross_entropy(colour_logits, colours) + self._scene_loss(ends, meanings)
        )
        return loss, float(right.float().mean())

    def _scene_loss(self, ends: Tensor, meanings: list[Meaning]) -> Tensor:
        def padded(values: list[int], blank: int) -> list[int]:
            return (values + [blank] * OBJECTS)[:OBJECTS]

        def label(values: list[int] | list[list[int]]) -> Tensor:
            return torch.tensor(values, device=ends.device)

        kinds = label([padded([n[1] for n in m.nouns], len(NOUNS)) for m in meanings])
        colours = label([padded([n[2] for n in m.nouns], len(COLOURS)) for m in meanings])
        loss = cross_entropy(self.scene_nouns(ends).unflatten(-1, (OBJECTS, -1)).flatten(0, 1), kinds.flatten())
        loss = loss + cross_entropy(
            self.scene_colours(ends).unflatten(-1, (OBJECTS, -1)).flatten(0, 1), colours.flatten()
        )
        for name in ("background", "relation", "fingers"):
            loss = loss + cross_entropy(getattr(self, name)(ends), label([getattr(m, name) for m in meanings]))
        return loss


class TextStage:
    """Teaches the encoder the labels of captions before any picture; this saves half of the base's training."""

    name = "text"

    def __init__(self, recipe: Recipe, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self.recipe: StageRecipe = recipe.text
        self.seed = recipe.seed
        self.tokenizer = make_tokenizer(recipe.words)
        self.text = make_text_encoder(recipe, self.tokenizer).to(device=device, dtype=dtype)
        self.heads = Heads(recipe.text_width).to(device)
        self.modules: list[nn.Module] = [self.text, self.heads]
        self.reader = Reader(self.tokenizer)

    def loss(self, step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch of captions; logs the share of nouns that are fully named."""
        chance = Random(f"text {self.seed} {step}")
        captions = [
            spoken(scene(chance.randrange(1 << 30), chance.choice(KINDS)), step) for _ in range(self.recipe.batch)
        ]
        ids = tokenize(self.tokenizer, captions)
        meanings = [self.reader.read(row) for row in ids.tolist()]
        # The encoder is causal: what stands after the end of a text changes nothing before it.
        length = 1 + max(m.end for m in meanings)
        states = self.text(ids[:, :length].to(self.text.device)).last_hidden_state
        loss, right = self.heads.loss(states, meanings)
        return loss, {"named": right}
