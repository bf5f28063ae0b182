"""A kubelet that runs the containers of pods as processes of this machine."""

from stageline_local.kubelet.kubelet import Kubelet

__all__ = ["Kubelet"]
