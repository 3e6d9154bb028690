"""A Video-LLaVA that sees a clip as pictures: the same weights as a LLaVA-1.5, whose images are the frames.

Video-LLaVA encodes frames one by one, each with its class token, and puts them in the place of its video tokens. That
is what LLaVA-1.5 does with images where it selects features in full and its image token is that token. The tower for
single images is left out: no clip passes through it.
"""

from __future__ import annotations

import copy

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from cinetune.export import prompt
from cinetune.model.encoder import Encoder
from cinetune.model.packing import CLIP_DEVIATION, CLIP_MEAN

SELECTION = "full"
# Class token of a picture, beside its patches.
ADDITIONAL_TOKENS = 1


def as_llava(model: VideoLlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """The same weights, not copied."""
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(config_of(model.config))
    weights = {
        name.replace(".video_tower.", ".vision_tower."): weight
        for name, weight in model.state_dict().items()
        if ".image_tower." not in name
    }
    llava.load_state_dict(weights, strict=True, assign=True)
    llava.tie_weights()
    return llava.to(model.dtype).eval()


def config_of(config: VideoLlavaConfig) -> LlavaConfig:
    vision = config.vision_config
    # Two models that are built from one configuration share it.
    return LlavaConfig(
        vision_config=copy.deepcopy(vision),
        text_config=copy.deepcopy(config.text_config),
        image_token_id=config.video_token_id,
        projector_hidden_act=config.projector_hidden_act,
        vision_feature_select_strategy=SELECTION,
        vision_feature_layer=config.vision_feature_layer,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2 + ADDITIONAL_TOKENS,
        multimodal_projector_bias=config.multimodal_projector_bias,
        tie_word_embeddings=config.tie_word_embeddings,
    )


def processor_of(config: VideoLlavaConfig, encoder: Encoder, num_frames: int) -> LlavaProcessor:
    """Pictures to our pixels and a chat to our tokens. Raises InputError where the tokenizer does not allow that."""
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    return LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=list(CLIP_MEAN),
            image_std=list(CLIP_DEVIATION),
        ),
        encoder.tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=SELECTION,
        image_token=encoder.tokenizer.convert_ids_to_tokens(encoder.video_token_id),
        num_additional_image_tokens=ADDITIONAL_TOKENS,
        chat_template=prompt.template(encoder, num_frames),
    )
