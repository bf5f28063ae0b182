"""CEL, the language of the rules in a CRD, as far as CRDs of pipelines and their like need it."""

from stageline_local.apiserver.cel.evaluation import evaluate
from stageline_local.apiserver.cel.rules import problems
from stageline_local.apiserver.cel.syntax import CelError, parse

__all__ = ["CelError", "evaluate", "parse", "problems"]
