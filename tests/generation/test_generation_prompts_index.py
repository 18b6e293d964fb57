import io
import random
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from hub_peer import REPOSITORY, serve

from gas.clock import ManualClock, derive_rng
from gas.datasets.sources.transfer import Patience
from gas.errors import ConfigurationError, GasError, MediaRejected
from gas.generation.prompts.columns import read_texts, text_column, text_pages
from gas.generation.prompts.files import texts_of
from gas.generation.prompts.hub import WebPieces, hub_files
from gas.generation.prompts.index import LocalPieces, PromptIndex, build_index

TEXTS = [None if at % 97 == 0 else f"prompt number {at} of a cat é with some more words" for at in range(6000)]


def table(**more):
    return pa.table({"n": list(range(len(TEXTS))), "prompt": TEXTS} | more)


def write(path, rows=None, **options):
    options = {"row_group_size": 2500, "data_page_size": 8192, "write_batch_size": 100} | options
    pq.write_table(table() if rows is None else rows, path, **options)
    return path


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "column_encoding": {"prompt": "DELTA_BYTE_ARRAY"}},
        {"use_dictionary": False, "column_encoding": {"prompt": "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
    ids=["dictionary", "plain", "version 2", "prefixes", "lengths"],
)
def test_any_page_of_any_codec_and_encoding_is_read_alone(codec, options):
    file = io.BytesIO()
    write(file, compression=codec, **options)
    data, found = file.getvalue(), []
    pages = list(text_pages(file, "t", "prompt"))
    assert len(pages) >= 3
    for page in pages:
        dictionary = data[page.dictionary : page.dictionary + page.dictionary_size]
        body = data[page.offset : page.offset + page.size]
        texts = read_texts(body, dictionary, page, "t")
        assert read_texts(body, dictionary, page, "t", row=page.rows - 1) == texts[-1:]
        found += texts
    assert found == TEXTS


def test_a_required_column_is_read_among_nested_and_repeated_ones():
    schema = pa.schema(
        [
            pa.field("list", pa.list_(pa.string())),
            pa.field("both", pa.struct([("a", pa.string()), ("b", pa.string())])),
            pa.field("caption", pa.string(), nullable=False),
        ]
    )
    rows = [{"list": ["x", "y"], "both": {"a": "1", "b": "2"}, "caption": f"c{at}"} for at in range(50)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    (page,) = text_pages(file, "t")
    data = file.getvalue()
    dictionary = data[page.dictionary : page.dictionary + page.dictionary_size]
    assert read_texts(data[page.offset : page.offset + page.size], dictionary, page, "t") == [
        f"c{at}" for at in range(50)
    ]


def test_columns_are_found_by_name_or_asked_for():
    file = io.BytesIO()
    pq.write_table(pa.table({"title": ["a"], "text": ["b"], "other": ["c"]}), file)
    assert text_column(file, "t") == "text"
    assert text_column(file, "t", "other") == "other"
    with pytest.raises(ConfigurationError, match="Its text columns: 'title'"):
        text_column(file, "t", "nope")
    file = io.BytesIO()
    pq.write_table(pa.table({"one": ["a"], "two": ["b"]}), file)
    with pytest.raises(ConfigurationError) as several:
        text_column(file, "t")
    assert several.value.error_code == "column_ambiguous"


@pytest.fixture
def files(tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"line {at} in a file of lines\n" for at in range(9000)) + "the last, without an end")
    return [str(write(tmp_path / "table.parquet")), str(lines)]


def test_every_row_of_every_file_is_found_by_its_number(tmp_path, files):
    index = build_index(files, tmp_path / "i" / "prompts.index")
    rows = [*TEXTS, *(f"line {at} in a file of lines" for at in range(9000)), "the last, without an end"]
    assert len(index) == len(rows)
    assert index.blocks >= 6
    for at in [0, 1, 97, 2499, 2500, 5999, 6000, 6001, len(rows) - 2, len(rows) - 1, *range(7, len(rows), 509)]:
        assert index.at(at) == rows[at]
    for beyond in (-1, len(rows)):
        with pytest.raises(IndexError):
            index.at(beyond)
    assert list(index.stream()) == [text for text in rows if text is not None]
    again = PromptIndex(tmp_path / "i" / "prompts.index")
    assert [again.draw(derive_rng(1)) for _ in range(3)] == [index.draw(derive_rng(1)) for _ in range(3)]


def test_draws_are_even_over_rows_and_never_empty(tmp_path):
    (tmp_path / "t.txt").write_text("one\n\n \ntwo\r\nthree\n")
    index = build_index([str(tmp_path / "t.txt")], tmp_path / "x")
    assert index.rows == 5
    rng = derive_rng(2)
    drawn = [index.draw(rng) for _ in range(3000)]
    counts = {text: drawn.count(text) for text in set(drawn)}
    assert set(counts) == {"one", "two", "three"}
    assert min(counts.values()) > 850


class CountingPieces(LocalPieces):
    def __init__(self):
        self.reads = []

    def read(self, file, offset, size):
        self.reads.append(size)
        return super().read(file, offset, size)


def test_a_draw_out_of_a_hundred_million_rows_reads_two_small_pieces(tmp_path):
    rows = pa.table({"prompt": [f"a short prompt with the number {at % 5000}" for at in range(200_000)]})
    pq.write_table(rows, tmp_path / "big.parquet", row_group_size=200_000)
    pieces = CountingPieces()
    index = build_index([str(tmp_path / "big.parquet")] * 500, tmp_path / "x", pieces=pieces)
    assert index.rows == 100_000_000
    assert (tmp_path / "x").stat().st_size < 2_000_000
    rng = derive_rng(3)
    for _ in range(20):
        pieces.reads.clear()
        row = int(rng.integers(index.rows))
        assert index.at(row) == f"a short prompt with the number {row % 200_000 % 5000}"
        assert len(pieces.reads) <= 2
        assert sum(pieces.reads) < 2_000_000


def test_a_file_that_has_changed_is_not_read(tmp_path, files):
    index = build_index(files, tmp_path / "x")
    with Path(files[1]).open("a") as lines:
        lines.write("more\n")
    assert index.at(0) is None
    with pytest.raises(ConfigurationError) as stale:
        index.at(7000)
    assert stale.value.error_code == "index_stale"


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other magic", "length", "json", "records"])
def test_a_damaged_index_is_refused(tmp_path, files, damage):
    build_index(files, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    (size,) = struct.unpack("<Q", data[-16:-8])
    bad = {
        "missing": None,
        "empty": b"",
        "cut": data[:-40],
        "other magic": b"OTHER" + data[5:],
        "length": data[:-16] + struct.pack("<Q", 1 << 60) + data[-8:],
        "json": data[: -16 - size] + b"[" * size + data[-16:],
        "records": data[:8] + b"\xff" * 48 + data[56:],
    }[damage]
    (tmp_path / "x").unlink()
    if bad is not None:
        (tmp_path / "x").write_bytes(bad)
    with pytest.raises(ConfigurationError) as broken:
        PromptIndex(tmp_path / "x")
    assert broken.value.error_code == "index_broken"


def test_damaged_tables_are_refused_and_never_read_beyond(tmp_path):
    good = write(tmp_path / "t.parquet").read_bytes()
    rng = random.Random(4)
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        if rng.random() < 0.3:
            del bad[rng.randrange(len(bad)) :]
        (tmp_path / "b").write_bytes(bytes(bad))
        try:
            for text in texts_of(tmp_path / "b"):
                assert isinstance(text, str)
        except GasError:
            pass


def test_a_table_put_in_the_place_of_another_is_noticed(tmp_path):
    pages = list(text_pages(io.BytesIO(write(tmp_path / "t.parquet").read_bytes()), "t", "prompt"))
    with pytest.raises(MediaRejected):
        read_texts(b"\x15\x00" * 50, b"", pages[0], "t")


def test_lines_without_end_are_no_prompts(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"x" * 3_000_000)
    for read in (
        lambda: build_index([str(tmp_path / "t.txt")], tmp_path / "x"),
        lambda: list(texts_of(tmp_path / "t.txt")),
    ):
        with pytest.raises(ConfigurationError) as refused:
            read()
        assert refused.value.error_code == "line_too_long"
    assert not (tmp_path / "x").exists()


def test_csv_columns_lines_and_tables_are_read_one_by_one(tmp_path):
    (tmp_path / "a.csv").write_text('id,Prompt\n1,"a cat,\nin two lines"\n2,a dog\n3\n', encoding="utf-8-sig")
    assert list(texts_of(tmp_path / "a.csv")) == ["a cat,\nin two lines", "a dog"]
    assert list(texts_of(tmp_path / "a.csv", "id")) == ["1", "2", "3"]
    with pytest.raises(ConfigurationError) as missing:
        list(texts_of(tmp_path / "a.csv", "text"))
    assert missing.value.error_code == "column_missing"
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo \xff\n")
    assert list(texts_of(tmp_path / "a.txt")) == ["one", "two \ufffd"]
    assert list(texts_of(write(tmp_path / "a.parquet"))) == [text for text in TEXTS if text is not None]
    with pytest.raises(ConfigurationError) as nowhere:
        list(texts_of(tmp_path / "nowhere.txt"))
    assert nowhere.value.error_code == "file_missing"


# ---- a hub


@pytest.fixture
def hub(tmp_path):
    data = write(tmp_path / "t.parquet").read_bytes()
    files = {"data/a.parquet": data, "data/b.parquet": data, "readme.md": b"hello"}
    with serve(files, token="secret-token") as peer:
        yield peer


@pytest.fixture
def patience():
    clock = ManualClock()
    return Patience(clock=clock, sleep=clock.advance)


@pytest.fixture
def web(hub, patience):
    pieces = WebPieces(patience, environment(hub))
    yield pieces
    pieces.close()


def environment(hub):
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": "secret-token"}


class _Ranges(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization"), self.headers.get("Range")))
        first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        data = self.server.data
        body = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def ranges(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    server.data, server.asked, server.etag = write(tmp_path / "r.parquet").read_bytes(), [], '"one"'
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hubs_tables_are_listed_at_their_commit(hub, patience):
    found = hub_files(REPOSITORY, patience, environment(hub))
    assert [address.rpartition("/")[2] for address in found.addresses] == ["a.parquet", "b.parquet"]
    assert all(found.revision in address for address in found.addresses)
    with pytest.raises(ConfigurationError) as empty:
        hub_files(REPOSITORY, patience, environment(hub), folder="nowhere")
    assert empty.value.error_code == "no_prompts"


def test_tables_of_the_web_are_indexed_and_drawn_from_in_pieces(ranges, patience, tmp_path):
    pieces = WebPieces(patience, {"HF_ENDPOINT": ranges.url, "HF_TOKEN": "secret-token"})
    index = build_index([f"{ranges.url}/a.parquet", f"{ranges.url}/b.parquet"], tmp_path / "x", pieces=pieces)
    assert index.rows == 2 * len(TEXTS)
    assert b"secret" not in (tmp_path / "x").read_bytes()
    assert {token for _, token, _ in ranges.asked} == {"Bearer secret-token"}
    ranges.asked.clear()
    assert index.at(len(TEXTS) + 2600) == TEXTS[2600]
    assert [path for path, _, _ in ranges.asked] == ["/b.parquet"] * len(ranges.asked)
    assert 1 <= len(ranges.asked) <= 2
    ranges.etag = '"two"'
    with pytest.raises(ConfigurationError) as stale:
        index.at(0)
    assert stale.value.error_code == "index_stale"
    pieces.close()


def test_the_hubs_token_goes_nowhere_else(ranges, patience):
    pieces = WebPieces(patience, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "secret-token"})
    assert pieces.describe(f"{ranges.url}/a.parquet") == (len(ranges.data), '"one"')
    assert [token for _, token, _ in ranges.asked] == [None]
    pieces.close()


def test_a_server_that_sends_only_whole_files_is_told_apart(hub, patience, web, tmp_path):
    addresses = hub_files(REPOSITORY, patience, environment(hub)).addresses
    hub.ranges = False
    with pytest.raises(ConfigurationError) as whole:
        build_index(addresses, tmp_path / "x", pieces=web)
    assert whole.value.error_code == "no_ranges"
