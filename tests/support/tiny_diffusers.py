"""Tiny diffusers models with random weights, of several architectures, saved as their pipelines save themselves."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_LETTERS = [chr(c) for c in range(97, 123)]


def save_tiny(kind: str, folder: Path) -> Path:
    """Build the model ``kind`` (a key of KINDS) and save it in a folder of its own below ``folder``."""
    torch.manual_seed(0)
    target = folder / kind
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        KINDS[kind](folder / "parts").save_pretrained(target)
    return target


def _clip_tokenizer(parts: Path) -> Any:
    from transformers import CLIPTokenizer

    parts.mkdir(parents=True, exist_ok=True)
    words = [*_LETTERS, *(c + "</w>" for c in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (parts / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (parts / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(parts / "vocab.json"), str(parts / "merges.txt"), model_max_length=77)


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((c, -2.0) for c in _LETTERS)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=32)


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=32, d_model=16, d_ff=16, d_kv=4, num_heads=4, num_layers=1))


def _clip_text(projection: int | None = None) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=54, hidden_size=8, intermediate_size=16, num_attention_heads=4, num_hidden_layers=2,
        bos_token_id=52, eos_token_id=53, pad_token_id=53, projection_dim=projection or 8, max_position_embeddings=77,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def _vae(latent: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=latent, norm_num_groups=2, **more,
    )  # fmt: skip


def _unet(cross: int = 8, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=32, cross_attention_dim=cross, norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=2,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
    )  # fmt: skip


def _ddim() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(steps_offset=1, clip_sample=False)


def _sd(parts: Path, checker: Any = None, extractor: Any = None) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=_vae(), text_encoder=_clip_text(), tokenizer=_clip_tokenizer(parts), unet=_unet(), scheduler=_ddim(),
        safety_checker=checker, feature_extractor=extractor, requires_safety_checker=checker is not None,
    )  # fmt: skip


def _prude(parts: Path) -> Any:
    """Stable Diffusion with a safety checker that objects to everything."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**vision, "image_size": 32, "patch_size": 16}, projection_dim=8)
    )
    # A picture's likeness to a concept is -1 or more: with this threshold it is always too much.
    checker.concept_embeds_weights.data.fill_(-2.0)
    return _sd(parts, checker, CLIPImageProcessor(size=32, crop_size=32))


def _sdxl(parts: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    unet = _unet(
        16, addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=32,
        use_linear_projection=True,
    )  # fmt: skip
    tokenizer = _clip_tokenizer(parts)
    return StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=_clip_text(), text_encoder_2=_clip_text(8), tokenizer=tokenizer,
        tokenizer_2=tokenizer, unet=unet, scheduler=_ddim(), add_watermarker=False,
    )  # fmt: skip


def _flux(parts: Path) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), text_encoder=_clip_text(), text_encoder_2=_t5(),
        tokenizer=_clip_tokenizer(parts), tokenizer_2=_t5_tokenizer(), transformer=transformer,
        vae=_vae(1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5),
    )  # fmt: skip


def _ltx(parts: Path) -> Any:
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32,
        num_layers=1, caption_channels=16,
    )  # fmt: skip
    scaling = (True, True, False, False)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling, decoder_inject_noise=(False,) * 5, upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4, patch_size=1, patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    return LTXPipeline(
        transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(), text_encoder=_t5(),
        tokenizer=_t5_tokenizer(),
    )  # fmt: skip


KINDS: dict[str, Callable[[Path], Any]] = {"sd": _sd, "prude": _prude, "sdxl": _sdxl, "flux": _flux, "ltx": _ltx}
