"""Whole rings of the toy model in one process."""

import functools

import torch

from support.pipeline import local_pipeline
from support.toy import EOS, toy, toy_tokens

slow = functools.partial(toy, delay=0.02)


def ring(stages=3, load=toy, **fields):
    """A ring of so many stages of one layer, of the toy."""
    return local_pipeline("/toy", [1] * stages, load=load, **fields)


def ready_in_ring(pipeline):
    """A router of a pipeline, once its ring turns."""
    pipeline.wait_ready()
    return pipeline.router()


def ids(*rows):
    """The inputs of these rows of token ids."""
    return {"input_ids": torch.tensor(rows)}


def greedy(prompt, count, stages):
    """The toy's tokens, up to its end-of-sequence token."""
    tokens = toy_tokens(prompt, count, stages)
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
