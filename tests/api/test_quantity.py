"""Quantities and durations: what Kubernetes and Go read, and nothing else."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_api.quantity import (
    format_bytes,
    format_bytes_up,
    parse_duration,
    parse_quantity,
    quantity_bytes,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("80Gi", 80 * 1024**3),
        ("500m", Fraction(1, 2)),
        ("1", 1),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("2k", 2000),
        ("1M", 10**6),
        ("3e2", 300),
        ("1E3", 1000),
        ("1E", 10**18),
        ("2Ei", 2 * 1024**6),
        ("1e-3", Fraction(1, 1000)),
        (".5", Fraction(1, 2)),
        ("7.", 7),
        ("0", 0),
    ],
)
def test_quantities_are_what_kubernetes_takes_them_for(text, number):
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "80GB", "80GiB", "Gi", "-1Gi", "1 Gi", "1e999", "0x10", "1_000", "٣Gi", "9" * 80]
)
def test_what_is_no_quantity_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="for example 80Gi"):
        parse_quantity(text)


def test_bytes_are_whole_and_rounded_down():
    assert quantity_bytes("1500m") == 1


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("2ms", 2.0), ("0s", 0.0), ("1.5s", 1500.0), ("1m30s", 90_000.0), ("250us", 0.25)],
)
def test_durations_are_read_as_milliseconds(text, milliseconds):
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "2", "ms", "-1s", "1d", "2 ms", "1ms" * 40])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="for example 2ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("count", "down", "up"),
    [
        (0, "0 B", "0 B"),
        (1023, "1023 B", "1023 B"),
        (80 * 1024**3, "80 GiB", "80 GiB"),
        (80 * 1024**3 + 1, "80 GiB", "80.1 GiB"),
        (1024**3 - 1, "1023.9 MiB", "1024 MiB"),
        (1536, "1.5 KiB", "1.5 KiB"),
        (2000 * 1024**5, "2000 PiB", "2000 PiB"),
    ],
)
def test_bytes_print_short(count, down, up):
    assert (format_bytes(count), format_bytes_up(count)) == (down, up)


@given(st.integers(0, 2**60))
def test_printed_needs_are_never_below_the_truth_and_offers_never_above(count):
    def read_back(text):
        number, unit = text.split()
        return parse_quantity(number) * parse_quantity(f"1{unit.removesuffix('B')}")

    assert read_back(format_bytes(count)) <= count <= read_back(format_bytes_up(count))
