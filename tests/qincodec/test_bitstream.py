"""The .qnc container against bits written out by hand, Python's integers, and mutated files."""

from __future__ import annotations

import math
import struct
import time
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qincodec.audio import resampled_length
from qincodec.bitstream import (
    BLOCK_FRAMES,
    ENTROPY_CODED,
    ENTROPY_CODED_MID_SIDE,
    PACKED,
    PACKED_MID_SIDE,
    QncHeader,
    Side,
    bits_per_frame,
    blocks,
    dumps,
    loads,
    loads_header,
    pack_codes,
    payload_bytes,
    unpack_codes,
)
from qincodec.code_tables import CodeTables
from qincodec.core.errors import UserError

TEN_BITS = (1024,) * 9
MODEL = bytes(range(8))


def random_codes(sizes: tuple[int, ...], frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = [random.integers(0, size, (channels, frames)) for size in sizes]
    return np.stack(rows, 1).astype(np.int32)


def header_for(
    sizes: tuple[int, ...], num_samples: int, channels: int = 1, source: tuple[int, int] | None = None
) -> QncHeader:
    rate, length = source or (44_100, num_samples)
    return QncHeader(MODEL, 44_100, 256, num_samples, rate, length, channels, sizes)


def example(
    sizes: tuple[int, ...] = TEN_BITS, num_samples: int = 150_001, channels: int = 1
) -> tuple[QncHeader, np.ndarray, bytes]:
    header = header_for(sizes, num_samples, channels)
    codes = random_codes(sizes, header.num_frames, channels)
    return header, codes, dumps(header, codes)


def skewed(
    sizes: tuple[int, ...] = TEN_BITS, num_samples: int = 150_001, channels: int = 1
) -> tuple[QncHeader, np.ndarray, CodeTables, bytes]:
    """The same with codes of unequal frequency, entropy-coded."""
    header = replace(header_for(sizes, num_samples, channels), version=ENTROPY_CODED)
    codes = random_codes(sizes, header.num_frames, channels) ** 2 // np.array(sizes)[:, None]
    codes = codes.astype(np.int32)
    tables = CodeTables.count(codes.transpose(0, 2, 1).reshape(-1, len(sizes)), sizes)
    return header, codes, tables, dumps(header, codes, tables)


# ---- packing -------------------------------------------------------------------------------------------


def test_bits_written_out_by_hand() -> None:
    codes = np.array([[[1, 0], [1023, 512]]])  # one channel, two codebooks, two frames
    bits = "0000000001111111111100000000001000000000"
    expected = int(bits, 2).to_bytes(5, "big")
    assert pack_codes(codes, (1024, 1024)) == expected == bytes.fromhex("007ff00200")
    # Half a byte over is padded with zeros; channels of a frame stand side by side.
    stereo = np.array([[[3, 1]], [[0, 2]]])  # two channels, one codebook of 4, two frames
    assert pack_codes(stereo, (4,)) == bytes([0b1100_0110])
    assert pack_codes(stereo[:, :, :1], (4,)) == bytes([0b1100_0000])
    # 3 * 5 * 7 = 105 values take 7 bits: (2 * 5 + 3) * 7 + 6 = 97.
    assert pack_codes(np.array([[[2], [3], [6]]]), (3, 5, 7)) == bytes([97 << 1])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.sampled_from([2, 3, 5, 8, 10, 625, 1000, 1024, 65536, 2**31 - 1]), min_size=1, max_size=20
    ),
    frames=st.integers(1, 40),
    channels=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_packing_round_trip_and_length(sizes: list[int], frames: int, channels: int, seed: int) -> None:
    codes = random_codes(tuple(sizes), frames, channels, seed)
    packed = pack_codes(codes, sizes)
    assert len(packed) == payload_bytes(frames, channels, sizes)
    assert np.array_equal(unpack_codes(packed, frames, channels, sizes), codes)
    exact = math.log2(math.prod(sizes))
    # At most a bit is lost per group of codes, and a group is broken up before 63 bits only by a large size.
    assert exact - 1e-6 <= bits_per_frame(sizes) <= exact + 1 + exact / 31
    if all(size & (size - 1) == 0 for size in sizes):
        bits = "".join(
            format(int(codes[c, n, t]), f"0{size.bit_length() - 1}b")
            for t in range(frames)
            for c in range(channels)
            for n, size in enumerate(sizes)
        )
        bits += "0" * (-len(bits) % 8)
        assert packed == int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("frames", [1, 7, 255, 256, 257, 861, 2000])
@pytest.mark.parametrize("num_codebooks", [1, 5, 9])
@pytest.mark.parametrize("channels", [1, 2])
def test_payload_is_exactly_the_papers_bits(frames: int, num_codebooks: int, channels: int) -> None:
    sizes = (1024,) * num_codebooks
    header, codes, data = example(sizes, frames * 256 - 3, channels)
    assert len(data) == math.ceil(channels * frames * num_codebooks * 10 / 8) + header.overhead_bytes
    # The packed bytes of the blocks are those of the whole: no block but the last is padded.
    found = b""
    at = 44 + 4 * num_codebooks + 4
    for start in range(0, frames, BLOCK_FRAMES):
        size = payload_bytes(min(BLOCK_FRAMES, frames - start), channels, sizes)
        found += data[at : at + size]
        at += size + 4
    assert found == pack_codes(codes, sizes)


def test_sixteen_kbps_is_15_5() -> None:
    header, _, data = example(num_samples=44_100 * 60)
    assert header.kbps(len(data)) == pytest.approx(15.5039, abs=2e-3)
    assert header.overhead_bytes / len(data) < 0.003


@pytest.mark.parametrize(
    ("codes", "sizes"),
    [
        (np.zeros((1, 2, 3), int), (4,)),
        (np.zeros((2, 3), int), (4, 4, 4)),
        (np.full((1, 1, 3), 4), (4,)),
        (np.full((1, 1, 3), -1), (4,)),
    ],
)
def test_codes_that_do_not_fit_are_not_packed(codes: np.ndarray, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="codes"):
        pack_codes(codes, sizes)


def test_bytes_that_do_not_fit_are_not_unpacked() -> None:
    with pytest.raises(ValueError, match="bytes"):
        unpack_codes(bytes(3), 1, 1, (4,))
    with pytest.raises(ValueError, match="padding"):
        unpack_codes(b"\x01", 1, 1, (4,))
    with pytest.raises(ValueError, match="outside"):
        unpack_codes(bytes([120 << 1]), 1, 1, (3, 5, 7))  # 105 and above mean nothing


# ---- container -----------------------------------------------------------------------------------------


def test_layout_of_version_1() -> None:
    header = QncHeader(MODEL, 44_100, 256, 300, 48_000, 327, 2, (1024, 4))
    codes = random_codes((1024, 4), 2, 2)
    data = dumps(header, codes)
    fixed = b"QNC\x1a" + struct.pack("<BBH8sIIQIQII", 1, 2, 2, MODEL, 44_100, 256, 300, 48_000, 327, 1024, 4)
    crc = zlib.crc32(fixed)
    packed = pack_codes(codes, (1024, 4))
    block = zlib.crc32(packed, zlib.crc32(bytes(8), crc))
    assert data == fixed + struct.pack("<I", crc) + packed + struct.pack("<I", block)


def test_layout_of_version_2() -> None:
    header, codes, tables, data = skewed((1024, 4), 70_000, 2)
    _, _, packed = example((1024, 4), 70_000, 2)
    at = 44 + 8
    assert data[:at] == packed[:4] + b"\x02" + packed[5:at]
    (crc,) = struct.unpack_from("<I", data, at)
    assert crc == zlib.crc32(data[:at])
    at += 4
    for number, start in enumerate((0, 256)):
        coded = tables.encode(codes[:, :, start : start + 256])
        assert struct.unpack_from("<I", data, at)[0] == len(coded)
        assert data[at + 4 : at + 4 + len(coded)] == coded
        at += 4 + len(coded) + 4
        check = zlib.crc32(coded, zlib.crc32(struct.pack("<Q", number), crc))
        assert struct.unpack_from("<I", data, at - 4)[0] == check
    assert at == len(data)
    assert header.overhead_bytes == len(data) - sum(map(len, blocks(data)[1]))


def mid_side(side: Side, num_samples: int = 70_000) -> tuple[QncHeader, np.ndarray, CodeTables]:
    """Of codes of unequal frequency; with a silent passage in the side."""
    header, codes, tables, _ = skewed((1024, 4, 5), num_samples, 2)
    codes[1, side.num_codebooks :] = -1
    codes[1, : side.num_codebooks, 50:90] = 3
    return replace(header, version=ENTROPY_CODED_MID_SIDE, side=side), codes, tables


def test_layout_of_mid_and_side() -> None:
    """Written out by hand: versions 3 and 4 are 1 and 2 with 3 bytes more and the codes of both as of one."""
    header, codes, tables = mid_side(Side(2, -5), 300)
    packed = dumps(replace(header, version=PACKED_MID_SIDE), codes)
    fixed = b"QNC\x1a" + struct.pack("<BBH8sIIQIQ", 3, 2, 3, MODEL, 44_100, 256, 300, 44_100, 300)
    fixed += struct.pack("<IIIHb", 1024, 4, 5, 2, -5)
    crc = zlib.crc32(fixed)
    one = pack_codes(np.concatenate([codes[0], codes[1, :2]])[None], (1024, 4, 5, 1024, 4))
    block = zlib.crc32(one, zlib.crc32(bytes(8), crc))
    assert packed == fixed + struct.pack("<I", crc) + one + struct.pack("<I", block)
    coded = dumps(header, codes, tables)
    assert coded[:4] + coded[5 : len(fixed)] == packed[:4] + packed[5 : len(fixed)]
    assert header.overhead_bytes == len(coded) - sum(map(len, blocks(coded)[1]))


@pytest.mark.parametrize("side", [Side(3), Side(1, 8), Side(0, -8)])
def test_mid_and_side_round_trip(side: Side) -> None:
    header, codes, tables = mid_side(side)
    for version, of_model in ((PACKED_MID_SIDE, None), (ENTROPY_CODED_MID_SIDE, tables)):
        header = replace(header, version=version)
        data = dumps(header, codes, of_model)
        got, back = loads(data, of_model)
        assert got == header
        assert np.array_equal(back, codes)
        if side.num_codebooks == 0:  # a side that is silent takes no byte: as long as the mid alone
            mono = replace(header, version=version - 2, channels=1, side=None)
            assert len(data) == len(dumps(mono, codes[:1], of_model)) + 3
        for length in range(40, len(data), 97):
            with pytest.raises(UserError, match="truncated"):
                loads(data[:length], of_model)


def test_headers_of_mid_and_side_that_cannot_be_are_refused() -> None:
    header, codes, tables = mid_side(Side(2))
    for change in ({"side": Side(4)}, {"side": Side(2, 9)}, {"side": None}, {"version": 2}):
        with pytest.raises(ValueError, match=r"side|Side"):
            replace(header, **change).check()
    with pytest.raises(ValueError, match="beyond its 1 codebooks"):
        dumps(replace(header, side=Side(1)), codes, tables)


@pytest.mark.parametrize("sizes", [TEN_BITS, (2,), (8, 5, 5, 5, 1024)])
@pytest.mark.parametrize(("num_samples", "channels"), [(1, 1), (256, 2), (70_000, 6)])
def test_entropy_coded_round_trip(sizes: tuple[int, ...], num_samples: int, channels: int) -> None:
    header, codes, tables, data = skewed(sizes, num_samples, channels)
    got, back = loads(data, tables)
    assert got == header
    assert np.array_equal(back, codes)
    longer = CodeTables([*tables.frequencies, tables.frequencies[0]])  # the model has more codebooks
    assert np.array_equal(loads(data, longer)[1], codes)


def test_blocks_that_entropy_coding_would_lengthen_are_packed() -> None:
    """Codes that the tables do not expect take no more bytes than they would packed."""
    header, _, tables, _ = skewed((1024, 1024), 70_000)
    rare = np.stack([np.argsort(f)[: header.num_frames] for f in tables.frequencies])[None].astype(np.int32)
    assert len(tables.encode(rare)) > payload_bytes(header.num_frames, 1, (1024, 1024))
    data = dumps(header, rare, tables)
    assert len(data) == payload_bytes(header.num_frames, 1, (1024, 1024)) + header.overhead_bytes
    assert np.array_equal(loads(data, tables)[1], rare)


def test_entropy_coded_files_need_their_tables() -> None:
    _, _, _, data = skewed((16, 16))
    with pytest.raises(UserError, match=r"tables of model 0001020304050607, which are not here"):
        loads(data)
    with pytest.raises(UserError, match="tables of model"):
        loads(data, CodeTables([np.full(4, 1 << 18)] * 2))
    with pytest.raises(UserError, match="makes no sense"):
        loads(data, CodeTables([np.full(16, 1 << 16)] * 2))
    header, codes, tables, _ = skewed((16, 16))
    with pytest.raises(ValueError, match="do not fit"):
        dumps(header, codes)
    with pytest.raises(ValueError, match="do not fit"):
        dumps(replace(header, version=PACKED), codes, tables)


@pytest.mark.parametrize("sizes", [TEN_BITS, (2,), (5,) * 32, (8, 5, 5, 5, 1024)])
@pytest.mark.parametrize("num_samples", [1, 256, 70_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_round_trip(sizes: tuple[int, ...], num_samples: int, channels: int) -> None:
    header, codes, data = example(sizes, num_samples, channels)
    got, back = loads(data)
    assert got == loads_header(data) == header
    assert back.dtype == np.int32
    assert np.array_equal(back, codes)


def test_source_is_noted() -> None:
    source = (96_000, 123_457)
    header = header_for((4,), resampled_length(source[1], source[0], 44_100), source=source)
    assert loads(dumps(header, random_codes((4,), header.num_frames)))[0].source_samples == 123_457


def test_a_sample_rate_that_cannot_be_noted_is_refused() -> None:
    header = header_for((4,), 44_100, source=(100, 100))
    with pytest.raises(UserError, match="100 Hz"):
        dumps(header, random_codes((4,), header.num_frames))


def test_every_truncation_is_one_clear_error() -> None:
    _, _, tables, coded = skewed((1024, 1024), 70_000)
    for data in (example(num_samples=70_000)[2], coded):
        for length in range(len(data)):
            with pytest.raises(UserError) as caught:
                loads(data[:length], tables)
            assert "\n" not in str(caught.value)
            if length >= 5:
                assert "truncated" in str(caught.value)


def test_every_changed_byte_is_found() -> None:
    _, _, tables, coded = skewed((1024, 1024), 70_000)
    for data in (example((1024, 1024), 70_000)[2], coded):
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1 << at % 8
            with pytest.raises(UserError):
                loads(bytes(changed), tables)


def test_errors_say_what_is_wrong() -> None:
    header, codes, data = example(num_samples=150_001)
    with pytest.raises(UserError, match=r"not a \.qnc file"):
        loads(b"RIFF" + data[4:])
    with pytest.raises(UserError, match=r"version 5.*update"):
        loads(data[:4] + b"\x05" + data[5:])
    with pytest.raises(UserError, match="3 bytes follow"):
        loads(data + b"abc")
    with pytest.raises(UserError, match="header"):
        loads(data[:20] + b"\xff" + data[21:])
    second = header.overhead_bytes - 12 + payload_bytes(BLOCK_FRAMES, 1, TEN_BITS) + 10
    with pytest.raises(UserError, match=r"block at 1\.49 s"):
        loads(data[:second] + bytes([data[second] ^ 1]) + data[second + 1 :])
    # Blocks that trade places, or come from another file, are whole in themselves.
    start, size = 44 + 36 + 4, payload_bytes(BLOCK_FRAMES, 1, TEN_BITS) + 4
    swapped = data[:start] + data[start + size : start + 2 * size] + data[start : start + size]
    with pytest.raises(UserError, match="block"):
        loads(swapped + data[start + 2 * size :])
    other = dumps(header_for(TEN_BITS, 150_000), codes)
    with pytest.raises(UserError, match="block"):
        loads(data[:start] + other[start : start + size] + data[start + size :])


def with_header(data: bytes, **fields: int) -> bytes:
    """``data`` with numbers of its header replaced and the header's check sum made to fit."""
    places = {
        "channels": (5, "<B"),
        "num_codebooks": (6, "<H"),
        "sample_rate": (16, "<I"),
        "hop_length": (20, "<I"),
        "num_samples": (24, "<Q"),
        "source_rate": (32, "<I"),
        "source_samples": (36, "<Q"),
        "size": (44, "<I"),
    }
    changed = bytearray(data)
    for name, value in fields.items():
        struct.pack_into(places[name][1], changed, places[name][0], value)
    (count,) = struct.unpack_from("<H", changed, 6)
    end = 44 + 4 * count
    if end + 4 <= len(changed):
        struct.pack_into("<I", changed, end, zlib.crc32(bytes(changed[:end])))
    return bytes(changed)


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": 0},
        {"channels": 255},
        {"num_codebooks": 0},
        {"num_codebooks": 8},
        {"num_codebooks": 65535},
        {"sample_rate": 0},
        {"source_rate": 0},
        {"source_rate": 2**32 - 1},
        {"hop_length": 0},
        {"hop_length": 1},
        {"hop_length": 2**32 - 1},
        {"num_samples": 0},
        {"num_samples": 2**64 - 1, "source_samples": 2**64 - 1},
        {"num_samples": 2**62, "source_samples": 2**62},
        {"source_samples": 2**63},
        {"size": 0},
        {"size": 1},
        {"size": 2**32 - 1},
    ],
)
def test_impossible_headers_with_fitting_check_sums_are_refused_without_allocating(fields: dict) -> None:
    _, _, data = example(num_samples=70_000)
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            loads(with_header(data, **fields))
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_header_cannot_promise_frames_that_take_no_bytes() -> None:
    data = with_header(example((2,), 256)[2], num_samples=2**40, source_samples=2**40, size=1)
    with pytest.raises(UserError, match="codebook sizes"):
        loads(data)


# ---- fuzzing -------------------------------------------------------------------------------------------


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(0, max(1, len(changed))))
        match random.integers(0, 6):
            case 0 if changed:
                changed[at] = int(random.integers(0, 256))
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = random.bytes(int(random.integers(1, 50)))
            case 3:
                del changed[at : at + int(random.integers(1, 50))]
            case 4 if len(changed) > 60:  # a number of the header becomes extreme
                place = int(random.integers(5, 50))
                changed[place : place + 4] = random.choice([b"\xff" * 4, bytes(4), b"\0\0\0\x7f"])
            case _:
                start = int(random.integers(0, max(1, len(changed))))
                changed[at : at + 20] = changed[start : start + 20]
    if random.random() < 0.5 and len(changed) > 60:
        return with_header(bytes(changed))  # so that more than the check sum is put to the test
    return bytes(changed)


def fuzz(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    seeds = [
        example()[2],
        example((1024, 1024), 300)[2],
        example((5,) * 8, 70_000, 2)[2],
        example((2,), 1)[2],
    ]
    _, _, tables, coded = skewed((1024, 1024), 70_000, 2)
    header, codes, _ = mid_side(Side(2, 1))
    seeds += [coded, dumps(replace(header, version=PACKED_MID_SIDE), codes)]
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(count):
            data = mutate(seeds[int(random.integers(0, len(seeds)))], random)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            begin = time.process_time()
            try:
                header, codes = loads(data, tables)
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
            else:
                assert codes.shape == (header.channels, header.num_codebooks, header.num_frames)
                assert (codes >= 0).all()
            assert time.process_time() - begin < 5
            # 32 bits for every bit of the file, and room for a block's bits as bytes.
            assert tracemalloc.get_traced_memory()[1] - before < 200 * len(data) + 2e6
    finally:
        tracemalloc.stop()
    assert refused > 0.8 * count


def test_mutated_files_never_crash_hang_or_allocate() -> None:
    fuzz(500, seed=0)


@pytest.mark.long
def test_ten_thousand_mutated_files() -> None:
    fuzz(10_000, seed=1)
