"""Why a leader cannot be listened to, where the two ends disagree about TLS. Pure.

gRPC tries for ever and says nothing; asked, it quotes the last failure. Only what no patience mends
is made a sentence here: that nobody listens yet is the way of every start.
"""

from __future__ import annotations

from typing import Final

_ANEW: Final = "its kubelet brings it the right one within two minutes, or delete the pod"
_WITH_TLS: Final = (
    (
        "WRONG_VERSION_NUMBER",
        "it speaks no TLS, and its revision asks for certificates: delete the pod, so that it is "
        "made anew as its revision says",
    ),
    (
        "certificate has expired",
        f"the certificate that it shows has run out: {_ANEW}",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        f"the certificate that it shows is none of this resource's authority: {_ANEW}",
    ),
    (
        "Socket closed",
        "it does not take the operator's certificate, as it trusts another authority than this "
        f"resource's: {_ANEW}",
    ),
)
"""Words of gRPC's, and what they mean; the first that is found counts."""
_WITHOUT_TLS: Final = (
    (
        "Socket closed",
        "it hangs up on whoever has no certificate, and its revision knows of none: delete the "
        "pod, so that it is made anew as its revision says",
    ),
)


def disagreement(details: str, *, tls: bool) -> str:
    """What is wrong, and what to do, by the `details` of a call; empty where it is not TLS.

    `tls`: whether the operator shows a certificate, and asks for one.
    """
    known = _WITH_TLS if tls else _WITHOUT_TLS
    return next((sentence for words, sentence in known if words in details), "")
