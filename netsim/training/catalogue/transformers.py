"""Transformers: BERT (Devlin et al. 2019), GPT-2 (Radford et al. 2019) and ViT (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from netsim.training.catalogue.tensors import Tensor, convolution, linear, norm


def bert(width: int, layers: int, vocabulary: int = 30_522, positions: int = 512) -> list[Tensor]:
    """Return the encoder of BERT (uncased) with its pooler, without a task-specific head."""
    sizes = {"word": vocabulary, "position": positions, "token_type": 2}
    tensors = [Tensor(f"embeddings.{kind}_embeddings.weight", (size, width)) for kind, size in sizes.items()]
    tensors += norm("embeddings.LayerNorm", width)
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            tensors += linear(f"{name}.attention.self.{part}", width, width)
        tensors += linear(f"{name}.attention.output.dense", width, width)
        tensors += norm(f"{name}.attention.output.LayerNorm", width)
        tensors += linear(f"{name}.intermediate.dense", width, 4 * width)
        tensors += linear(f"{name}.output.dense", 4 * width, width)
        tensors += norm(f"{name}.output.LayerNorm", width)
    return tensors + linear("pooler.dense", width, width)


def gpt2(width: int, layers: int, vocabulary: int = 50_257, positions: int = 1024) -> list[Tensor]:
    """Return GPT-2; the output layer shares its weights with the word embedding."""
    tensors = [Tensor("wte.weight", (vocabulary, width)), Tensor("wpe.weight", (positions, width))]
    for layer in range(layers):
        name = f"h.{layer}"
        tensors += norm(f"{name}.ln_1", width)
        tensors += linear(f"{name}.attn.c_attn", width, 3 * width)
        tensors += linear(f"{name}.attn.c_proj", width, width)
        tensors += norm(f"{name}.ln_2", width)
        tensors += linear(f"{name}.mlp.c_fc", width, 4 * width)
        tensors += linear(f"{name}.mlp.c_proj", 4 * width, width)
    return tensors + norm("ln_f", width)


def vit(width: int, layers: int, patch: int, image: int = 224, classes: int = 1000) -> list[Tensor]:
    """Return a vision transformer as in torchvision."""
    tensors = [Tensor("class_token", (1, 1, width))]
    tensors += convolution("conv_proj", 3, width, patch, bias=True)
    tensors += [Tensor("encoder.pos_embedding", (1, (image // patch) ** 2 + 1, width))]
    for layer in range(layers):
        name = f"encoder.layers.encoder_layer_{layer}"
        tensors += norm(f"{name}.ln_1", width)
        tensors += [Tensor(f"{name}.self_attention.in_proj_weight", (3 * width, width))]
        tensors += [Tensor(f"{name}.self_attention.in_proj_bias", (3 * width,))]
        tensors += linear(f"{name}.self_attention.out_proj", width, width)
        tensors += norm(f"{name}.ln_2", width)
        tensors += linear(f"{name}.mlp.0", width, 4 * width)
        tensors += linear(f"{name}.mlp.3", 4 * width, width)
    return tensors + norm("encoder.ln", width) + linear("heads.head", width, classes)
